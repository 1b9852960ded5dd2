"""Measure a model directory on data, for every subset of its inputs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm.cli._app import launch

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mm.checkpoint import LoadedModel


def main(argv: list[str]) -> None:
    launch("evaluate", argv, job)


def job(cfg: "DictConfig", folder: Path) -> None:
    from mm import checkpoint
    from mm.cli import _apply, _robustness

    loaded = _apply.load(cfg)
    if not len(loaded.model.heads):
        return aligned(cfg, loaded, folder)
    if cfg.zero_shot.target is not None or cfg.linear_probe is not None:
        raise ValueError("zero_shot and linear_probe are for models of task=contrastive; this one has heads")
    datamodule = _apply.datamodule(cfg, loaded, labelled=True)
    metrics = {
        head: checkpoint.build(node, ["torchmetrics", *cfg.allow]) for head, node in loaded.config["metrics"].items()
    }
    study = None if cfg.get("robustness") is None else _robustness.plan(cfg, loaded, datamodule, metrics)
    task, trainer = _apply.test(cfg, loaded, datamodule, cfg.split, metrics=metrics)
    if study is not None:
        _robustness.run(study, trainer, task, folder)
    _apply.conclude(trainer, task, datamodule, datamodule.rows(cfg.split).tolist(), folder, truth=True)


def aligned(cfg: "DictConfig", loaded: "LoadedModel", folder: Path) -> None:
    """A model without heads: retrieval, and, of a target that is named, zero-shot classes and linear probes."""
    from omegaconf import OmegaConf, open_dict

    from mm.cli import _alignment, _apply
    from mm.metrics.retrieval import Retrieval

    if "scale" not in loaded.config["task"]:
        raise ValueError(
            f"{loaded.path}: nothing of this model can be measured by itself: it was trained on inputs without labels; "
            "train it further, with model.init_from"
        )
    if cfg.get("robustness") is not None:
        raise ValueError("robustness: this model predicts nothing: it was trained to align its inputs; leave it out")
    asked: Any = OmegaConf.to_container(cfg.zero_shot)
    wanted = dict.fromkeys(name for name in (asked["target"], cfg.linear_probe) if name is not None)
    datamodule = _apply.datamodule(cfg, loaded, labelled=True, only=list(wanted))
    _alignment.check_prompts(asked, datamodule, loaded.model.inputs)
    if cfg.linear_probe is not None:
        _alignment.known(datamodule, "linear_probe", cfg.linear_probe)
    with open_dict(cfg):
        cfg.task = {"_target_": "mm.tasks.contrastive.Contrastive"}
    task, trainer = _apply.test(cfg, loaded, datamodule, cfg.split, retrieval=Retrieval())
    results, seen = task.results, task.embedded
    results |= _alignment.told(task, datamodule, asked, loaded.config["task"]["scale"])
    if cfg.linear_probe is not None:
        _apply.again(trainer, task, datamodule, "train")
        results |= _alignment.probe(task.embedded, seen, datamodule, cfg.linear_probe, loaded.model.inputs)
    task.results = results
    _apply.conclude(trainer, task, datamodule, datamodule.rows(cfg.split).tolist(), folder, truth=True)
