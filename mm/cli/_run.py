"""The steps that the verbs share, in the order of the house: data, finished config, model, transforms, task, trainer."""

import logging
import os
import shlex
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning import Callback, LightningDataModule, Trainer
from omegaconf import DictConfig, OmegaConf, open_dict

from mm import checkpoint
from mm.cli import _finish, _results
from mm.cli._app import is_first_process, shown
from mm.tasks.base import Task


@dataclass
class Run:
    """What a job has built."""

    datamodule: Any
    task: Any
    metrics: dict[str, Any]  # configs of each head's metrics
    started: float = field(default_factory=time.time)


def quiet() -> None:
    """Lightning's tips and its advice to use more workers tell a user of `mm` nothing."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*number of training batches.*is smaller than the logging interval.*")
    warnings.filterwarnings("ignore", ".*LeafSpec.*")
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", ".*you set `weights_only=.*")


def prepare(cfg: DictConfig, folder: Path) -> Run:
    """Data, finished config, model and task."""
    quiet()
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = _finish.build_datamodule(cfg, kinds=_finish.target_kinds(cfg.model))
    spec = datamodule.table.spec
    for split in ("train", *(["val"] if cfg.trainer.limit_val_batches else [])):
        datamodule.rows(split)  # an empty split is told before anything is built
    _finish.finish_model(cfg, spec)
    metrics = _finish.cut_metrics(cfg)
    model = instantiate(cfg.model, _convert_="all")
    needs = {name: model.encoders[model.share.get(name, name)].input for name in model.inputs}
    _finish.finish_transforms(cfg, spec, needs)
    if is_first_process():
        print(OmegaConf.to_yaml(cfg, resolve=True))
        OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
    datamodule.use({name: instantiate(node, _convert_="all") for name, node in cfg.datamodule.transforms.items()})
    if cfg.compile:
        model.compile()
    task = instantiate(cfg.task, _partial_=True, _convert_="all")(
        model=model, metrics={head: checkpoint.build(node, ["torchmetrics", *cfg.allow]) for head, node in metrics.items()}
    )
    return Run(datamodule, task, metrics)


def fit(cfg: DictConfig, run: Run, folder: Path) -> Trainer:
    """Train, or go on training."""
    resume = newest(folder) if cfg.resume else None
    callbacks = [instantiate(node, _convert_="all") for node in (cfg.callbacks or {}).values()]
    trainer = build_trainer(cfg, callbacks, loggers(cfg, folder))
    for logger in trainer.loggers:
        logger.log_hyperparams(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
    trainer.fit(run.task, datamodule=run.datamodule, ckpt_path=resume, weights_only=True)
    return trainer


def build_trainer(cfg: DictConfig, callbacks: list[Callback], logger: Any) -> Trainer:
    """Lightning's Trainer, from its yaml."""
    return instantiate(cfg.trainer, _partial_=True, _convert_="all")(callbacks=callbacks, logger=logger)


def newest(folder: Path) -> str:
    """The run folder's newest checkpoint. Errors: ValueError where there is none."""
    found = sorted((folder / "checkpoints").glob("*.ckpt"), key=os.path.getmtime)
    if not found:
        raise ValueError(f"resume=true: {shown(folder)} holds no checkpoint yet; start it anew under another run=NAME")
    return str(found[-1])


def loggers(cfg: DictConfig, folder: Path) -> list[Any]:
    """Built from their yamls; what W&B is told by default is the run's name, its sweep as group, and its id, kept."""
    built = []
    for name, node in (cfg.logger or {}).items():
        if name == "wandb":
            state = HydraConfig.get()
            sweep = state.mode == RunMode.MULTIRUN
            with open_dict(cfg):
                node.name = node.name or (f"{cfg.run}/{state.job.num}" if sweep else cfg.run)
                node.group = node.group or (cfg.run if sweep else None)
                node.id = os.environ.get("WANDB_RUN_ID") or wandb_id(folder)
                node.resume = "allow"
        built.append(instantiate(node, _convert_="all"))
    return built


def wandb_id(folder: Path) -> str:
    """The id under which this run folder was, and will be, logged."""
    file = folder / "wandb_id"
    if is_first_process() and not file.exists():
        import wandb

        file.write_text(wandb.util.generate_id())
    return file.read_text() if file.exists() else ""


def conclude(cfg: DictConfig, run: Run, trainer: Trainer, folder: Path) -> float | None:
    """Test the best checkpoint, save everything, say where it is. -> the monitored metric's best value"""
    task, datamodule = run.task, run.datamodule
    results = {"train/epochs": trainer.current_epoch, "train/steps": trainer.global_step}
    best = getattr(trainer.checkpoint_callback, "best_model_path", "")
    score = None
    if best:
        task.load_state_dict(torch.load(best, map_location="cpu", weights_only=True)["state_dict"])
        score = float(trainer.checkpoint_callback.best_model_score)  # type: ignore[union-attr]
        results[cfg.monitor.metric] = score
    tested = bool((datamodule.table.split == "test").any()) and cfg.trainer.limit_test_batches != 0
    if tested:
        trainer.test(task, datamodule=datamodule, verbose=False)
    results |= task.results | {"train/seconds": round(time.time() - run.started, 3)}
    decoded, faults, cut = gather(trainer, (task.decoded, datamodule.faults, datamodule.cut))
    if not trainer.is_global_zero:
        return score
    results |= data_counts(faults, cut)
    table = datamodule.table
    saved = {"model": save_model(cfg, run, results, folder), "config": folder / "config.yaml"}
    if tested:
        rows = datamodule.rows("test").tolist()
        _results.write_predictions(folder / "predictions.parquet", table, rows, decoded, faults, truth=True)
        saved["predictions"] = folder / "predictions.parquet"
        for path in _results.write_figures(folder, task.figures):
            saved[path.stem] = path
    if faults:
        datamodule.faults = faults
        datamodule.write_errors(folder / "errors.csv")
        saved["errors"] = folder / "errors.csv"
    _results.write_json(folder / "metrics.json", results)
    saved["metrics"] = folder / "metrics.json"
    finish_loggers(trainer, task, results, saved)
    model, name = shown(folder / "model"), cfg.run
    _results.print_results(
        results,
        folder,
        saved,
        [
            f"mm evaluate checkpoint={model} datamodule={HydraConfig.get().runtime.choices.get('datamodule')} ...",
            f"mm predict checkpoint={model} datamodule=manifest datamodule.path=new.csv",
            f"mm train run={name} resume=true trainer.max_epochs={2 * (cfg.trainer.max_epochs or 1)}",
        ],
    )
    return score


def finish_loggers(trainer: Trainer, task: Task, results: dict[str, Any], saved: dict[str, Path]) -> None:
    """Pictures and the model directory go to W&B where it watches."""
    for logger in trainer.loggers:
        logger.finalize("success")


def gather(trainer: Trainer, parts: tuple[dict, dict, set]) -> tuple[dict, dict, set]:
    """What each process knows, joined."""
    if trainer.world_size == 1:
        return parts
    everyone: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(everyone, parts)
    decoded, faults, cut = zip(*everyone, strict=True)
    return {k: v for d in decoded for k, v in d.items()}, {k: v for d in faults for k, v in d.items()}, set().union(*cut)


def data_counts(faults: dict[tuple[int, str], str], cut: set[tuple[int, str]]) -> dict[str, int]:
    """Rows that could not be read, and per input those whose end was left out."""
    names = sorted({name for _, name in cut})
    counts = {f"data/cut/{name}": sum(n == name for _, n in cut) for name in names}
    return {"data/faulty_rows": len({row for row, _ in faults})} | counts


def save_model(cfg: DictConfig, run: Run, results: dict[str, Any], folder: Path) -> Path:
    """The model directory of the run."""
    table = run.datamodule.table
    columns = OmegaConf.select(cfg, "datamodule.columns")
    counts = {s: int((table.split == s).sum()) for s in ("train", "val", "test")}
    command = shlex.join(["mm", *sys.argv[1:]])
    path = folder / "model"
    checkpoint.save(
        path,
        run.task.model,
        OmegaConf.to_container(cfg.model, resolve=True),  # type: ignore[arg-type]
        run.datamodule.transforms,
        OmegaConf.to_container(cfg.datamodule.transforms, resolve=True),  # type: ignore[arg-type]
        table.spec,
        None if columns is None else OmegaConf.to_container(columns, resolve=True),  # type: ignore[arg-type]
        run.metrics,
        _results.model_card(command, table.source, counts, results, run.task.model),
    )
    return path
