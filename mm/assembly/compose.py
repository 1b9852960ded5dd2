"""Composition of the configs in `mm.conf` from Python, without a change of Hydra's global state."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from mm.assembly.hydra_messages import suggest
from mm.assembly.registry import open_registry
from mm.configurable import target_of
from mm.messages import near
from mm.renames import OPTIONS
from mm.types import DataSpec

CONF = Path(__file__).parents[1] / "conf"
# Kind of a target to the option of `model/heads` that predicts it by default.
DEFAULT_HEADS = {
    "answers": "span",
    "boxes": "detection",
    "class": "classification",
    "labels": "multilabel",
    "number": "regression",
    "spelling": "ctc",
    "tags": "token_classification",
    "text": "seq2seq",
}


def compose_config(verb: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose the config of a verb in the same way as the command line.

    Args:
        verb: Name of the root config, such as "train".
        overrides: Hydra overrides, such as "model/fusion=gated".

    Returns:
        The config. Hydra's global state is restored.

    Raises:
        ValueError: If an override is invalid; the message names the nearest key or option.
    """
    state, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with open_registry():
            return compose(verb, list(overrides))
    except HydraException as error:
        raise ValueError(suggest(str(error).strip(), verb, overrides)) from None
    finally:
        GlobalHydra.instance().hydra = state


def model_overrides(spec: DataSpec, options: dict[str, str]) -> list[str]:
    """Return the Hydra overrides that choose an encoder for each input and a head for each target.

    Args:
        spec: Inputs and targets of the data.
        options: Input or target name to an option of its config group, such as {"text": "hashed_ngrams"}. Other inputs
            get the default encoder of `conf/model/multimodal.yaml`, other targets the default head for their kind.

    Raises:
        ValueError: If an option does not exist.
    """
    defaults = default_encoders()
    words = ["datamodule=manifest", "~model/heads"]
    for name, data in spec.inputs.items():
        group = f"model/encoders/{data.modality}"
        if name in options:
            check_option(group, options[name], name)
        option = options.get(name, defaults.get(data.modality))
        if name in defaults and name == data.modality:
            words.append(f"{group}={option}")
        elif option is not None:
            words.append(f"+{group}@model.encoders.{name}={option}")
    for name, target in spec.targets.items():
        if name in options:
            check_option("model/heads", options[name], name)
        words.append(f"+model/heads@model.heads.{name}={options.get(name, DEFAULT_HEADS.get(target.kind))}")
    return words


def default_encoders() -> dict[str, str]:
    """Return the option of the default encoder for each modality that has one."""
    defaults: Any = OmegaConf.to_container(OmegaConf.load(CONF / "model" / "multimodal.yaml"))["defaults"]  # type: ignore[index]
    found = {group: option for entry in defaults if isinstance(entry, dict) for group, option in entry.items()}
    return {group.split("/")[1]: option for group, option in found.items() if group.startswith("encoders/")}


def check_option(group: str, option: str, name: str) -> None:
    """Raise a ValueError if a config group has no option of a name.

    Args:
        group: The config group, such as `model/heads`.
        option: Name of the option.
        name: Name of the input, target or argument that it was chosen for, for the message.
    """
    known = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
    if f"{group}/{option}" in OPTIONS:
        raise ValueError(f"{name}: '{option}' is now '{OPTIONS[f'{group}/{option}']}'")
    if option not in known:
        raise ValueError(f"{name}: got '{option}', wanted one of {', '.join(known)}{near(option, known)}")


def find_head_option(head: Any) -> str | None:
    """Return the option of `model/heads` that builds the class of a head; None if no option does."""
    for file in sorted((CONF / "model" / "heads").glob("*.yaml")):
        node: Any = OmegaConf.load(file)
        if node.get("_target_") == target_of(head):
            return file.stem
    return None
