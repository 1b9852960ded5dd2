"""Learning rates never decrease towards the output, whatever the encoder.

The order of the layers that an encoder states is compared with the order in which a forward calls them.
"""

import pytest
import torch
from test_contracts import build, cases
from torch import nn

from mm.contracts.encoder import random_input
from mm.encoders.audio.huggingface import HuggingFaceAudio
from mm.encoders.text.huggingface import HuggingFaceText
from mm.encoders.vision.huggingface import HuggingFaceVision
from mm.encoders.vision.timm import TimmVision
from mm.tasks.optim.parameters import layers_above


def called_parameters(encoder: nn.Module) -> list[str]:
    """Parameters of all modules that a forward calls, by when their module is called first."""
    seen: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: seen.append(name))
        for name, module in encoder.named_modules()
        if list(module.parameters(recurse=False))
    ]
    with torch.no_grad():
        encoder.eval()(*random_input(encoder.input))  # type: ignore[arg-type]
    for handle in handles:
        handle.remove()
    order = list(dict.fromkeys(seen))
    return [
        f"{name}.{key}".lstrip(".")
        for name in order
        for key, _ in encoder.get_submodule(name).named_parameters(recurse=False)
    ]


def check_order(encoder: nn.Module) -> int:
    """Fail where a rate decreases towards the output. -> how many layers there are"""
    model = nn.Module()
    model.encoders = nn.ModuleDict({"x": encoder})
    names = [f"encoders.x.{name}" for name, _ in encoder.named_parameters()]
    above = layers_above(model, names, "layer_decay")
    assert set(above) == set(names)
    rates = [0.5 ** above[f"encoders.x.{name}"] for name in called_parameters(encoder)]
    assert rates == sorted(rates)
    assert rates[-1] == 1
    return len(set(rates))


SHIPPED = [case for case in cases("encoders") if "timm" not in case.id and "huggingface" not in case.id]


@pytest.mark.parametrize(("case", "file", "overrides"), SHIPPED)
def test_shipped_encoders(case, file, overrides):
    encoder = build(file, overrides)
    layers = check_order(encoder)
    assert layers > 1 or not [name for name, _ in encoder.named_parameters() if "blocks" in name]


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "test_vit",
        "vit_tiny_patch16_224",
        "convnext_atto",
        "efficientnet_lite0",
        "mobilenetv3_small_050",
        "swin_tiny_patch4_window7_224",
        "regnetx_002",
        "densenet121",
        "edgenext_xx_small",
        "levit_128s",
    ],
)
def test_models_of_timm(name):
    fixed = {"swin_tiny_patch4_window7_224": [224, 224], "levit_128s": [224, 224], "vit_tiny_patch16_224": [224, 224]}
    assert check_order(TimmVision(name, channels=3, size=fixed.get(name, [64, 64]))) > 3


SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 37}
T5 = {"d_model": 32, "num_layers": 3, "num_heads": 2, "d_ff": 37, "d_kv": 16}
WAV2VEC2 = SMALL | {"conv_dim": [32, 32], "conv_kernel": [8, 8], "conv_stride": [4, 4], "feat_extract_norm": "layer"}
WAV2VEC2 |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
WHISPER = {"d_model": 32, "encoder_layers": 3, "encoder_attention_heads": 2, "encoder_ffn_dim": 37, "vocab_size": 50}
WHISPER |= {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 37, "pad_token_id": 1}
WHISPER |= {"bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 1}
SHARED = {"embedding_size": 16}
TEXT = {
    "bert": (SMALL, 4),
    "roberta": (SMALL, 4),
    "distilbert": ({"dim": 32, "n_layers": 3, "n_heads": 2, "hidden_dim": 37}, 4),
    "t5": (T5, 4),
    "gpt2": ({"n_embd": 32, "n_layer": 3, "n_head": 2}, 4),
    "albert": (SMALL | SHARED, 2),  # its layers are one, called three times
    "deberta-v2": (SMALL | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}, 4),
    "electra": (SMALL | SHARED, 4),
}
VISION = {
    "vit": (SMALL | {"image_size": 32, "patch_size": 8}, 4),
    "swin": ({"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "image_size": 32, "window_size": 4}, 3),
    "resnet": ({"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "layer_type": "basic"}, 3),
    "pvt": ({"image_size": 64}, 5),
}
AUDIO = {
    "wav2vec2": (WAV2VEC2 | {"do_stable_layer_norm": True}, 4),
    "hubert": (WAV2VEC2, 4),
    "whisper": (WHISPER, 4),
    "audio-spectrogram-transformer": (SMALL | {"max_length": 128, "num_mel_bins": 128}, 4),
}


@pytest.mark.parametrize("kind", [*TEXT, *VISION, *AUDIO])
def test_models_of_transformers(kind):
    """With so many layers, embeddings included; finding them draws no random number."""
    (fields, layers) = (TEXT | VISION | AUDIO)[kind]
    config = {"model_type": kind, **fields}
    torch.manual_seed(0)
    if kind in TEXT:
        encoder = HuggingFaceText(None, config, False, "bytes", 40, "mean")
    elif kind in VISION:
        encoder = HuggingFaceVision(None, config, False, None, None, "mean")
    else:
        encoder = HuggingFaceAudio(None, config, False, None, "mean")
    state = torch.get_rng_state()
    encoder.layer_order()
    assert torch.equal(torch.get_rng_state(), state)
    assert check_order(encoder) == layers
