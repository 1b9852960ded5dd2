"""Checks of the overrides of a command: chosen options, added keys, types of values, and data files."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mm.assembly.config_types import check_types
from mm.assembly.overrides import parse_override
from mm.data.readers.suffixes import check_table_file
from mm.messages import near


def check_groups(cfg: DictConfig, overrides: Sequence[str], choices: Mapping[str, Any]) -> None:
    """Check that options are chosen with a slash, and that every added key belongs to a known section of the config.

    Args:
        cfg: The composed config.
        overrides: The overrides that the user typed.
        choices: Config group to its chosen option.

    Raises:
        ValueError: If an option was chosen with a dot, as in `model.fusion=gated`, or if an added key (`+key=value`)
            lies in an unknown section.
    """
    for group in choices:
        chosen = OmegaConf.select(cfg, group.replace("/", "."), throw_on_missing=False)
        if isinstance(chosen, str):
            key = group.replace("/", ".")
            raise ValueError(f"{key}={chosen}: an option is chosen with a slash: {group}={chosen}")
    roots = {group.split("/")[0].split("@")[0] for group in choices} | {"callbacks", "logger"}  # chosen as lists
    added = [parse_override(word)[0] for word in overrides if word[0] == "+"]
    for root in {key.split(".")[0] for key in added}:
        if root.split("/")[0].split("@")[0] not in roots:
            known = [str(key) for key in cfg if key != root]
            raise ValueError(f"+{root}: nothing reads it; the keys are {', '.join(known)}{near(root, known)}")


def check_values(cfg: DictConfig, verb: str, overrides: Sequence[str], choices: Mapping[str, Any]) -> None:
    """Check the types of the values that the user typed.

    Args:
        cfg: The composed config.
        verb: Name of the root config. It is composed again without the typed values if a key has no type annotation, to
            compare the value with its default.
        overrides: The overrides that the user typed.
        choices: Config group to its chosen option.

    Raises:
        ValueError: If a value has the wrong type; the message names the key.
    """

    @cache
    def default() -> DictConfig:
        chosen = [o for o in overrides if parse_override(o)[0] in choices]
        return GlobalHydra.instance().config_loader().load_configuration(verb, chosen, RunMode.RUN)

    kept = [override for override in overrides if not override.startswith("~")]
    groups = {*choices, "callbacks", "logger"}  # the last two also as lists of options
    check_types(cfg, default, {key: value for key, value in map(parse_override, kept) if key not in groups})


def check_data_files(cfg: DictConfig) -> None:
    """Check, before slow imports, that the files of `datamodule=manifest` exist and have known suffixes.

    Args:
        cfg: The composed config.

    Raises:
        ValueError: If a file does not exist or has an unknown suffix.
    """
    if OmegaConf.select(cfg, "datamodule._target_") != "mm.datamodules.manifest.ManifestDataModule":
        return
    path = OmegaConf.select(cfg, "datamodule.path", throw_on_missing=False)
    for one in path if OmegaConf.is_list(path) else [path]:
        name = one.get("path") if OmegaConf.is_dict(one) else one
        if isinstance(name, str) and name and not Path(name).is_dir():
            check_table_file(Path(name))


def check_no_training(cfg: DictConfig, verb: str) -> None:
    """Check that a verb whose config is that of `mm train` sets no key of it that only a whole training reads.

    Args:
        cfg: The config.
        verb: Name of the verb, for the message.

    Raises:
        ValueError: If `resume` or `baseline` is set.
    """
    for key in ("resume", "baseline"):
        if cfg[key]:
            raise ValueError(f"{key}: got {cfg[key]}, but mm {verb} does not read it; leave it out")
