"""Build transformers models: shared code of the three encoders in `huggingface.py`."""

import inspect
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from mm._compat.transformers import model_class
from mm.pretrained import load_pretrained


def huggingface_model(
    pretrained: str | None, config: Mapping[str, Any] | None, random_init: bool, modality: str
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Build a transformers model without pooling layer and without decoder.

    The weights are float32, whatever the precision of the file is, because the trainer sets the precision.

    Args:
        pretrained: Folder or hub name of the model; exclusive with `config`.
        config: Fields of a transformers config with its `model_type`, for random weights.
        random_init: Whether to ignore the weights of `pretrained` and to use its architecture only.
        modality: Modality of the encoder, for the error message.

    Returns:
        The model, and the plain config from which it can be rebuilt.

    Raises:
        ValueError: If not exactly one of `pretrained` and `config` is given.
    """
    if (pretrained is None) == (config is None):
        got = "neither" if pretrained is None else "both"
        flag = f"model.encoders.{modality}"
        raise ValueError(
            f"{flag}: got {got} of `pretrained` and `config`, wanted exactly one; "
            f"set {flag}.pretrained=FOLDER, or {flag}.config={{model_type: ...}} for random weights"
        )
    if config is not None:
        hf_config = AutoConfig.for_model(**plain(config))
    else:
        assert pretrained is not None
        hf_config = AutoConfig.from_pretrained(pretrained, trust_remote_code=False)
    quieten(hf_config)
    kind = model_class(hf_config)
    extra = {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(kind.__init__).parameters else {}
    if pretrained is None or random_init:
        model = AutoModel.from_config(hf_config, dtype=torch.float32, trust_remote_code=False, **extra)
    else:
        settings = {"config": hf_config, "dtype": torch.float32, "trust_remote_code": False, **extra}
        model = load_pretrained(AutoModel, pretrained, **settings)
    if hf_config.is_encoder_decoder:
        model = model.get_encoder()
    for module in model.modules():
        if "mask_token" in module._parameters:  # used in masked image modelling only
            module.mask_token = None
    return model, {name: value for name, value in hf_config.to_dict().items() if name != "_name_or_path"}


def quieten(config: PreTrainedConfig) -> None:
    """Switch off caches, and features such as layer drop and mask embeddings that leave parameters without a gradient.

    Args:
        config: The config, changed in place.
    """
    for name in ("layerdrop", "encoder_layerdrop", "decoder_layerdrop", "mask_time_prob", "mask_feature_prob"):
        if name in config.to_dict():
            setattr(config, name, 0.0)
    if "use_cache" in config.to_dict():
        config.use_cache = False


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a deep copy of a config as plain data."""
    return json.loads(json.dumps(config, default=dict))


def takes(model: nn.Module, name: str) -> bool:
    """Return whether the forward of a model has an argument of this name."""
    return name in inspect.signature(model.forward).parameters
