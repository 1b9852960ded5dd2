"""Construction of Lightning's Trainer and its callbacks from their configs."""

from collections.abc import Collection, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hydra.utils import instantiate
from lightning import Callback, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ProgressBar
from lightning.pytorch.loggers.logger import DummyLogger
from omegaconf import DictConfig, OmegaConf, open_dict

from mm.assembly.launcher import adapt_trainer
from mm.callbacks.periodic_checkpoint import WholeFileIO
from mm.callbacks.save_at_steps import SaveAtSteps
from mm.features.store import FrozenFeatures
from mm.model import MultimodalModel

ESSENTIAL = ("periodic_checkpoint", "checkpoint")  # callbacks of conf/callbacks/default.yaml


def build_trainer(
    cfg: DictConfig, callbacks: Sequence[Callback], logger: Any, folder: Path, monitored: bool = True
) -> Trainer:
    """Build Lightning's Trainer from `cfg.trainer`.

    Args:
        cfg: The config.
        callbacks: The callbacks.
        logger: Loggers, or False for none.
        folder: The run folder.
        monitored: Whether a command of `mm` runs the Trainer. Then the command handles signals and monitors the
            processes of the run; otherwise Lightning does.

    Raises:
        ValueError: If a value is invalid for the Trainer.
    """
    hints = get_type_hints(Trainer.__init__)
    for key, value in cfg.trainer.items():
        if isinstance(value, str | float) and key in hints and not {type(value), value} & set(members(hints[key])):
            raise ValueError(f"trainer.{key}: got '{value}', wanted {str(hints[key]).replace('typing.', '')}")
    # Lightning would add a checkpoint callback of its own, which watches nothing.
    keeps = any(isinstance(callback, Checkpoint) for callback in callbacks)
    make = instantiate(cfg.trainer, _partial_=True, _convert_="all")
    plugins: list[Any] = [WholeFileIO()]
    if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        # Its own handlers would save a checkpoint that a later run in the same folder takes for its own, and requeue.
        plugins.append(SLURMEnvironment(auto_requeue=False))
    own = {"default_root_dir": str(folder), "enable_checkpointing": keeps, "plugins": plugins}
    try:
        trainer = make(callbacks=list(callbacks), logger=logger, **own)
    except (TypeError, MisconfigurationException) as error:
        raise ValueError(f"trainer: {error}; look at the keys under trainer") from error
    return adapt_trainer(trainer) if monitored else trainer


def members(hint: Any) -> list[Any]:
    """Return a type annotation with the members of its unions and the values of its literals."""
    return [hint, *(found for inner in get_args(hint) for found in members(inner))]


def keep_callbacks(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Add the callbacks `periodic_checkpoint` and `checkpoint` if another choice of callbacks has replaced them.

    For example, `callbacks=early_stopping` replaces the default list, so that the run would silently save no
    checkpoints and could not be resumed. `~callbacks.checkpoint` and `~callbacks.periodic_checkpoint` leave one of them
    out on purpose, and `callbacks=[]` leaves out all callbacks.

    Args:
        cfg: The config, changed in place.
        overrides: The overrides that the user typed.
    """
    if not cfg.get("callbacks"):
        return
    left_out = {o.removeprefix("~").split("=")[0] for o in overrides if o.startswith("~")}
    default: Any = OmegaConf.create((files("mm.conf") / "callbacks/default.yaml").read_text(encoding="utf-8"))
    with open_dict(cfg):
        for name in ESSENTIAL:
            if name not in cfg.callbacks and f"callbacks.{name}" not in left_out:
                cfg.callbacks = OmegaConf.merge({name: default[name]}, cfg.callbacks)


def build_callbacks(cfg: DictConfig, without: Collection[str] = ()) -> list[Callback]:
    """Build the callbacks of the config, except those with the names in `without`."""
    nodes = {name: node for name, node in (cfg.get("callbacks") or {}).items() if name not in without}
    return [instantiate(node, _convert_="all") for node in nodes.values()]


def build_run_callbacks(cfg: DictConfig, model: MultimodalModel) -> list[Callback]:
    """Build the callbacks of the config and, with `cfg.cache_features`, the one that stores frozen features."""
    callbacks = build_callbacks(cfg)
    stores = [FrozenFeatures(f"{cfg.paths.cache}/features", describe_inputs(cfg, model))] if cfg.cache_features else []
    return [*callbacks, *stores]


def build_trial_trainer(cfg: DictConfig, folder: Path, monitored: bool = True) -> Trainer:
    """Build a Trainer for measurements, without loggers, checkpoints and a cache of frozen features."""
    left_out = (Checkpoint, EarlyStopping, ProgressBar, SaveAtSteps)
    callbacks = [callback for callback in build_callbacks(cfg) if not isinstance(callback, left_out)]
    return build_trainer(cfg, callbacks, DummyLogger(), folder, monitored)


def describe_inputs(cfg: DictConfig, model: MultimodalModel) -> dict[str, str]:
    """Return the settings of the encoder and the transform of each input, as YAML text by input name."""
    parts = {
        name: (cfg.model.encoders[model.shared_encoders.get(name, name)], cfg.datamodule.transforms[name])
        for name in model.inputs
    }
    return {name: "\n".join(OmegaConf.to_yaml(part, resolve=True) for part in pair) for name, pair in parts.items()}
