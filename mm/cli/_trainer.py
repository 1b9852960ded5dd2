"""Lightning's Trainer and its callbacks, from their configs."""

from importlib.resources import files
from typing import Any, get_args, get_type_hints

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning import Callback, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ProgressBar
from lightning.pytorch.loggers.logger import DummyLogger
from omegaconf import DictConfig, OmegaConf, open_dict

from mm.callbacks.periodic_checkpoint import WholeFileIO
from mm.callbacks.save_at_steps import SaveAtSteps
from mm.cli._lightning import adapt_trainer
from mm.features.store import FrozenFeatures

ESSENTIAL = ("periodic_checkpoint", "checkpoint")  # callbacks of conf/callbacks/default.yaml


def build(cfg: DictConfig, callbacks: list[Callback], logger: Any) -> Trainer:
    """Lightning's Trainer, from its yaml. Errors: ValueError where it refuses a value, or would trip over a text."""
    hints = get_type_hints(Trainer.__init__)
    for key, value in cfg.trainer.items():
        if isinstance(value, str | float) and key in hints and not {type(value), value} & set(members(hints[key])):
            raise ValueError(f"trainer.{key}: got '{value}', wanted {str(hints[key]).replace('typing.', '')}")
    # Lightning would add a checkpoint callback of its own, which watches nothing.
    keeps = any(isinstance(callback, Checkpoint) for callback in callbacks)
    build = instantiate(cfg.trainer, _partial_=True, _convert_="all")
    plugins: list[Any] = [WholeFileIO()]
    if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        # Its own handlers would save a checkpoint that a later run in the same folder takes for its own, and requeue.
        plugins.append(SLURMEnvironment(auto_requeue=False))
    own = {"default_root_dir": HydraConfig.get().runtime.output_dir, "enable_checkpointing": keeps, "plugins": plugins}
    try:
        trainer = build(callbacks=callbacks, logger=logger, **own)
    except (TypeError, MisconfigurationException) as error:
        raise ValueError(f"trainer: {error}; look at the keys under trainer") from error
    return adapt_trainer(trainer)


def members(hint: Any) -> list[Any]:
    """A type, the members of a union and the values of its literals."""
    return [hint, *(found for inner in get_args(hint) for found in members(inner))]


def keep_callbacks(cfg: DictConfig) -> None:
    """Add the callbacks that a run can't do without, where another choice of callbacks has left them out.

    `callbacks=early_stopping` replaces the default list, and would silently take checkpoints, the best weights and
    resuming away. `~callbacks.checkpoint` and `~callbacks.periodic_checkpoint` leave them out on purpose, and
    `callbacks=[]` all of them.
    """
    if not cfg.get("callbacks"):
        return
    left_out = {o.removeprefix("~").split("=")[0] for o in HydraConfig.get().overrides.task if o.startswith("~")}
    default: Any = OmegaConf.create((files("mm.conf") / "callbacks/default.yaml").read_text(encoding="utf-8"))
    with open_dict(cfg):
        for name in ESSENTIAL:
            if name not in cfg.callbacks and f"callbacks.{name}" not in left_out:
                cfg.callbacks = OmegaConf.merge({name: default[name]}, cfg.callbacks)


def build_callbacks(cfg: DictConfig, model: Any) -> list[Callback]:
    """Those of the config, and the one that stores what frozen encoders give."""
    callbacks = [instantiate(node, _convert_="all") for node in (cfg.get("callbacks") or {}).values()]
    stores = [FrozenFeatures(f"{cfg.paths.cache}/features", describe(cfg, model))] if cfg.cache_features else []
    return [*callbacks, *stores]


def build_for_trial(cfg: DictConfig, model: Any) -> Trainer:
    """Return a trainer that logs and keeps nothing; a frozen encoder counts as if it ran at every step."""
    left_out = (Checkpoint, EarlyStopping, ProgressBar, FrozenFeatures, SaveAtSteps)
    callbacks = [callback for callback in build_callbacks(cfg, model) if not isinstance(callback, left_out)]
    return build(cfg, callbacks, DummyLogger())


def describe(cfg: DictConfig, model: Any) -> dict[str, str]:
    """Input name -> the settings of its encoder and its transform, as text."""
    parts = {
        name: (cfg.model.encoders[model.shared_encoders.get(name, name)], cfg.datamodule.transforms[name])
        for name in model.inputs
    }
    return {name: "\n".join(OmegaConf.to_yaml(part, resolve=True) for part in pair) for name, pair in parts.items()}
