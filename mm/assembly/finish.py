"""Completion of a composed config with the values that follow from the data, so that no user has to type them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from mm import checkpoint
from mm.assembly.construct import build, construct, escape
from mm.assembly.provenance import NamedKey
from mm.data_source import check_data_source
from mm.messages import near
from mm.modalities import modality_names
from mm.transforms.tabular.columns import plain
from mm.types import DataSpec, InputData, InputSpec, TargetData


def fill(node: DictConfig, values: Mapping[str, Any]) -> None:
    """Set every `???` in a node and in its nested mappings whose key is in `values`."""
    for key in list(node):
        if OmegaConf.is_missing(node, key):
            if key in values:
                node[key] = escape(values[key])
        elif (
            isinstance(child := node._get_node(key), DictConfig)
            and not child._is_none()
            and not child._is_interpolation()
        ):
            fill(child, values)


def fill_inputs(node: DictConfig, inputs: Sequence[str]) -> None:
    """Set `inputs` in the config of a fusion and of the fusions nested in it, if it is `???`.

    A nested fusion gets the inputs of the mapping around it if that has `inputs` of its own.

    Args:
        node: Config of the fusion, changed in place.
        inputs: Names of all inputs.
    """
    if OmegaConf.is_missing(node, "inputs"):
        node.inputs = list(inputs)
    own = node.get("inputs") or inputs
    for key in node:
        if isinstance(child := node._get_node(key), DictConfig) and not child._is_none():
            fill_inputs(child, own)


def build_data(cfg: DictConfig, codecs: bool = True, **more: Any) -> Any:
    """Build the data module of a config, without transforms.

    Args:
        cfg: The config. With `codecs`, the input of each target codec that needs one is filled in, see `fill_anchors`.
        codecs: Whether to build the target codecs that the configs of the heads name, and to read the targets with
            them.
        **more: Further arguments of the data module, which configs do not have.
    """
    if codecs:
        more["readers"] = build_codecs(cfg)
    config = cfg.copy()
    with open_dict(config):
        config.datamodule.pop("transforms", None)  # they are built once the encoders are known
    factory = build(config, "datamodule", _partial_=True)
    check_data_source(factory.func)
    return factory(**more)


def build_codecs(cfg: DictConfig) -> dict[str, Any]:
    """Build the target codec of each head from `target_codec` in its config.

    Raises:
        ValueError: If a head has no `target_codec`, or if a codec needs an anchor and the fusion has none.
    """
    fill_anchors(cfg)
    return {name: build(cfg, f"model.heads.{name}.target_codec") for name in cfg.model.heads}


def fill_anchors(cfg: DictConfig) -> None:
    """Set `input` of each target codec that has one value per token of an input to the anchor of the fusion.

    Raises:
        ValueError: If a head has no `target_codec`, or if a codec needs an anchor and the fusion has none.
    """
    for name, head in cfg.model.heads.items():
        if "target_codec" not in head:
            raise ValueError(
                f"model.heads.{name}: its yaml lacks `target_codec`, how the target's cells are read, such as "
                "{_target_: mm.targets.classes.ClassTarget}"
            )
        if "input" in head.target_codec:  # its head predicts something of each token
            head.target_codec.input = cfg.model.fusion.get("anchor")
            if head.target_codec.input is None:
                raise ValueError(
                    f"model.heads.{name} predicts something of each token: set model.fusion.anchor to the input whose "
                    "tokens these are, with model/fusion=sum, cross_attention or film"
                )


def build_model(cfg: DictConfig) -> Any:
    """Build the model of a completed config, with random weights or the pretrained weights that its encoders name."""
    node: Any = OmegaConf.to_container(cfg.model, resolve=True, throw_on_missing=True)
    node.pop("init_from", None)
    node["heads"] = {name: without(head, "target_codec", "metrics") for name, head in node["heads"].items()}
    return construct(node, "model")


def build_metrics(cfg: DictConfig) -> dict[str, dict[str, Any]]:
    """Build the metrics that the config of each head names. They belong to the task, not to the model."""
    heads: Any = OmegaConf.to_container(cfg.model, resolve=True)["heads"]  # type: ignore[index]
    packages = ["torchmetrics", *cfg.allow]
    return {name: checkpoint.build(head.get("metrics") or {}, packages) for name, head in heads.items()}


def without(node: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Return a copy of a mapping without some keys."""
    return {key: value for key, value in node.items() if key not in keys}


def input_facts(data: InputData) -> dict[str, Any]:
    """Return what an encoder may need to know of its input, such as the channels of images; None: it is unknown."""
    return asdict(replace(data, columns=None))


def target_facts(data: TargetData) -> dict[str, Any]:
    """Return what a head may need to know of its target: its classes and, for example, their counts."""
    return {"classes": list(data.classes), **data.facts}


def finish_model(cfg: DictConfig, spec: DataSpec, named: Sequence[NamedKey] = ()) -> None:
    """Remove the encoders and heads of inputs and targets that the data lacks, and fill in the values of the others.

    Args:
        cfg: The config, changed in place.
        spec: Inputs and targets of the data.
        named: Keys that the user or an experiment sets. A part that they configure must not be removed, except if an
            experiment sets the key and `datamodule.inputs` leaves out inputs.

    Raises:
        ValueError: If a part would be removed that was configured on purpose, if an input has no encoder, if a target
            has no head although the task trains heads, if there are heads although it does not, or if the name of an
            input or target can't be used.
    """
    model = cfg.model
    task = get_class(cfg.task._target_)
    reads_heads: bool = task.reads_heads
    if model.heads and not reads_heads:
        raise ValueError(f"model.heads.{next(iter(model.heads))}: {task.__name__} reads no head; leave it out")
    restricted = cfg.datamodule.get("inputs") is not None  # leaving inputs out on purpose is no mistake
    share = dict(model.get("shared_encoders") or {})
    for name in (*spec.inputs, *spec.targets):
        if not name.isidentifier() or name in dir(nn.ModuleDict):
            raise ValueError(
                f"'{name}' can't name an input or a target (torch takes it, or it is no plain word); rename it"
            )
    for name in share:
        if name not in spec.inputs:
            raise ValueError(
                f"model.shared_encoders.{name}: the data has no input '{name}', only {', '.join(spec.inputs)}"
            )
    with open_dict(cfg):
        for group, known, what in (("encoders", spec.inputs, "input"), ("heads", spec.targets, "target")):
            for name in [n for n in model[group] if n not in known]:
                part = f"model.{group}.{name}"
                by = next((one for one in named if one.key == part or one.key.startswith(f"{part}.")), None)
                if by and (by.typed or not restricted):
                    raise ValueError(
                        f"model.{group}.{name} is set by {by.by}, but the data has no {what} '{name}', only "
                        f"{', '.join(known)}; name its column with datamodule.columns, or leave it out"
                    )
                del model[group][name]
        for name, data in spec.inputs.items():
            if name in share:
                continue
            if name not in model.encoders:
                raise ValueError(
                    f"the input '{name}' has no encoder; "
                    f"add +model/encoders/{data.modality}@model.encoders.{name}=..., "
                    f"or share one with +model.shared_encoders.{name}=..., or leave it out with datamodule.inputs"
                )
            fill(model.encoders[name], {k: v for k, v in input_facts(data).items() if v is not None})
        for name, data in spec.targets.items():
            if name not in model.heads and not reads_heads:
                continue
            if name not in model.heads:
                raise ValueError(f"the target '{name}' has no head; add +model/heads@model.heads.{name}=classification")
            fill(model.heads[name], target_facts(data))
        if not model.heads and reads_heads:
            raise ValueError("the data has no target to learn; name its column with datamodule.columns.target=...")
        names = [n for n in spec.inputs if n not in share] + [n for n in spec.inputs if n in share]
        model.encoders = {n: model.encoders[n] for n in names if n not in share}
        fill_inputs(model.fusion, names)


def finish_transforms(
    cfg: DictConfig, spec: DataSpec, needs: Mapping[str, InputSpec], named: Sequence[NamedKey] = ()
) -> None:
    """Choose the transform of each input by the name of the input, or else by its modality, and fill in its values.

    The requirements of the encoder take precedence. The remaining values follow from the data.

    Args:
        cfg: The config; `datamodule.transforms` is replaced by one transform per input.
        spec: Inputs of the data.
        needs: Input name to the requirements of its encoder.
        named: Keys that the user or an experiment sets.

    Raises:
        ValueError: If an encoder reads another modality, if it reads fewer tokens than `max_length` of the transform,
            or if the user has set a key of a transform that no input uses.
    """
    templates = cfg.datamodule.transforms
    finished = {}
    for name, data in spec.inputs.items():
        need = needs[name]
        if need.modality != data.modality:
            raise ValueError(
                f"model.encoders.{name} reads {need.modality}, but the input '{name}' is {data.modality}; "
                "choose one of "
                f"model/encoders/{data.modality}"
            )
        # An input may bear the name of one modality and be of another: a spectrogram is a picture of sound.
        template = templates[name] if name in templates and name not in modality_names() else templates[data.modality]
        transform: DictConfig = OmegaConf.create(OmegaConf.to_container(template))  # type: ignore[assignment]
        has = input_facts(data) | {"columns": [plain(c) for c in data.columns or ()]}
        fill(transform, asdict(need) | {k: v for k, v in has.items() if asdict(need).get(k) is None})
        if data.max_value is not None and "max_value" in transform and transform.max_value is None:
            transform.max_value = data.max_value
        for codec in (head.target_codec for head in cfg.model.heads.values()):
            if codec.get("input") == name:
                tell_places(transform, name, data.modality, get_class(codec._target_).needs)
        longest = transform.get("max_length")
        if need.max_length is not None and (longest is None or longest > need.max_length):
            raise ValueError(
                f"datamodule.transforms.{name}.max_length: got {longest}, but its encoder reads at most "
                f"{need.max_length}"
            )
        finished[name] = transform
    read = {*finished, *(data.modality for data in spec.inputs.values())}
    for key, by, typed in named:
        part = key.removeprefix("datamodule.transforms.").split(".")[0]
        if key.startswith("datamodule.transforms.") and part not in read and typed:
            raise ValueError(f"{by}: the data has no input that it would act on, only {', '.join(spec.inputs)}")
    with open_dict(cfg):
        cfg.datamodule.transforms = finished


def tell_places(transform: DictConfig, name: str, modality: str, needs: tuple[str, str] | None) -> None:
    """Enable the option of a transform that a target codec requires, such as `return_offsets` for texts.

    Args:
        transform: Config of the transform, changed in place.
        name: Name of the input, for the message.
        modality: Modality of the input.
        needs: `needs` of the target codec: the required modality and the name of the option; None: nothing is required.

    Raises:
        ValueError: If the input has another modality.
    """
    if needs is None:
        return
    wanted, option = needs
    if modality != wanted:
        raise ValueError(
            f"model.fusion.anchor: got '{name}', which is {modality}, but a head predicts something of parts of "
            f"{wanted}; name an input of {wanted}"
        )
    transform[option] = True


def resolve_monitor(cfg: DictConfig, known: Mapping[str, bool | None]) -> None:
    """Check the monitored metric, and fill in whether it is maximised or minimised.

    Args:
        cfg: The config; `cfg.monitor.mode` is set if it is null.
        known: Name of each validation metric to whether higher is better; None if neither is better.

    Raises:
        ValueError: If validation does not log the metric, or if its direction is neither known nor set.
    """
    metric = cfg.monitor.metric
    if metric not in known:
        raise ValueError(f"monitor.metric: got '{metric}', wanted one of {', '.join(known)}{near(metric, known)}")
    if cfg.monitor.mode is None and known[metric] is not None:
        cfg.monitor.mode = "max" if known[metric] else "min"
    if cfg.monitor.mode not in ("min", "max"):
        raise ValueError(f"monitor.mode: got '{cfg.monitor.mode}', wanted min or max")
