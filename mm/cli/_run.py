"""The steps of a training run, in the order of the house: data, finished config, model, transforms, task, trainer."""

import sys
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.core.hydra_config import HydraConfig
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from omegaconf import DictConfig, OmegaConf

from mm.applying import count_faults, count_splits
from mm.assembly import finish
from mm.assembly.construct import build
from mm.assembly.settings import check_settings
from mm.callbacks.periodic_checkpoint import newest_first
from mm.callbacks.save_at_steps import SaveAtSteps
from mm.checkpoint import TrainedModel
from mm.cli import _loggers, _named_keys, _results, _resuming, _teachers, _tokenizers, _trainer, _weights
from mm.cli._app import resume_command, save_overrides, shown
from mm.data.summary import describe_splits
from mm.data.targets import check_labelled
from mm.evaluation.zero_shot import check_alignment, zero_shot_after_training
from mm.files import refusal
from mm.messages import command, is_first_process, plain, say
from mm.quiet import silence_lightning
from mm.runs.card import model_card
from mm.runs.results import save_results, write_metrics
from mm.signals import Stopped
from mm.tasks import guards
from mm.tasks.distributed.sharding import FSDP2Strategy
from mm.tasks.supervised import Supervised

LONG = 600  # letters of a value that are printed as they are


@dataclass
class Run:
    """What a job has built."""

    datamodule: Any
    task: Any
    metrics: dict[str, dict[str, Any]]  # head name -> its metrics by name
    started: float = field(default_factory=time.time)


def prepare(cfg: DictConfig) -> Run:
    """Data, finished config, model and task; writes nothing yet."""
    silence_lightning()
    seed_everything(cfg.seed)
    _trainer.keep_callbacks(cfg)
    datamodule = finish.build_data(cfg)
    spec = datamodule.table.spec
    for split in ("train", *(["val"] if cfg.trainer.limit_val_batches else [])):
        datamodule.rows(split)  # an empty split is told before anything is built
    if is_first_process():
        counts = ", ".join(f"{name} {count}" for name, count in count_splits(datamodule).items())
        print(f"{plain(datamodule.table.source)}: {counts} rows")
        for line in describe_splits(datamodule.table):
            print(f"  {line}")
    named = _named_keys.named_keys()
    finish.finish_model(cfg, spec, named)
    sources = _weights.read_sources(cfg)
    _tokenizers.finish_tokenizers(cfg, datamodule)
    model = finish.build_model(cfg)
    if not cfg.get("resume"):
        _tokenizers.check_sources(cfg, model, sources)
        _weights.take(sources, model)
    _weights.adapt(cfg, model)
    needs = {name: model.encoders[model.shared_encoders.get(name, name)].input for name in model.inputs}
    finish.finish_transforms(cfg, spec, needs, named)
    datamodule.use({name: build(cfg, f"datamodule.transforms.{name}") for name in cfg.datamodule.transforms})
    if not isinstance(cfg.compile, bool):
        raise ValueError(f"compile: got '{cfg.compile}', wanted true or false")
    if cfg.compile:
        model.compile()
    for key in ("optimizer", "scheduler", "nonfinite"):
        if cfg.task.get(key) is None:
            raise ValueError(f"task.{key}: got null, which only a task that tests can do without; leave the key out")
    metrics = finish.build_metrics(cfg)
    try:
        teachers = _teachers.load(cfg, datamodule.transforms)
        parts = teachers | ({"metrics": metrics} if metrics else {})
        task = build(cfg, "task", _partial_=True)(model=model, **parts)
    except (TypeError, ValueError) as error:
        raise ValueError(f"task: {error}" if isinstance(error, TypeError) else str(error)) from error
    check_settings(cfg, task)
    finish.resolve_monitor(cfg, task.val_names())
    check_alignment(task, datamodule)
    if isinstance(task, Supervised):
        heads = [name for name in model.heads if name in datamodule.table.targets]
        check_labelled(datamodule.table, heads, cfg.monitor.metric if cfg.trainer.limit_val_batches else None)
    return Run(datamodule, task, metrics)


def seed_everything(seed: int) -> None:
    """Errors: ValueError where it is no seed."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ValueError(f"seed: got {seed}, wanted a whole number from 0 to {2**32 - 1}")
    lightning.seed_everything(seed, workers=True, verbose=False)


def fit(cfg: DictConfig, run: Run, folder: Path) -> Trainer:
    """Train, or go on training."""
    resume = _resuming.newest(folder) if cfg.resume else None
    callbacks = _trainer.build_callbacks(cfg, run.task.model)
    trainer = _trainer.build(cfg, callbacks, _loggers.build(cfg, folder))
    sharded = isinstance(trainer.strategy, FSDP2Strategy)
    if sharded:
        guards.check_sharding(run.task, trainer)  # before any callback begins
    if sharded and _weights.has_adapters(cfg):
        raise ValueError("peft: trainer=fsdp does not share out adapters; use trainer=ddp")
    for callback in callbacks:
        if isinstance(callback, SaveAtSteps):
            if sharded or _weights.has_adapters(cfg):
                raise ValueError(
                    "callbacks=save_at_steps saves whole models: not those of trainer=fsdp, nor adapters; leave it out"
                )
            if any(isinstance(other, WeightAveraging) for other in callbacks):
                raise ValueError("callbacks: kept would save the weights as they are, not ema's average; leave one out")
            callback.save = partial(save_model, cfg, run)
    if not sharded and resume and Path(resume).is_dir():
        raise ValueError(f"{shown(Path(resume))} is a sharded model's; go on with trainer=fsdp, trainer.devices=1 does")
    if is_first_process():
        if cfg.resume:
            _resuming.check(cfg, folder, run.datamodule)
        print(OmegaConf.to_yaml(abridged(OmegaConf.to_container(cfg, resolve=True))))
        (folder / "metrics.json").unlink(missing_ok=True)  # a run that goes on is not finished
        save_overrides(folder)  # first: a process that is started again knows its run by it
        OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
        _resuming.keep_rows(run.datamodule, folder)
    if is_first_process():
        trained_model(cfg, run, {}).check_saving(folder / "model")
    _loggers.start(cfg, trainer, folder)
    try:
        trainer.fit(run.task, datamodule=run.datamodule, ckpt_path=resume, weights_only=True)
    except MisconfigurationException as error:
        raise ValueError(f"trainer: {error}") from error
    except BaseException as end:
        tell_end(cfg, trainer, folder, end)
        raise
    return trainer


def abridged(node: Any) -> Any:
    """Plain data for a person: of texts of thousands of letters, such as all classes of a table, the beginning."""
    if isinstance(node, dict):
        return {key: abridged(value) for key, value in node.items()}
    if isinstance(node, list):
        return [abridged(value) for value in node]
    long = isinstance(node, str) and len(node) > LONG
    return f"{node[: LONG // 10]} ... ({len(node)} letters, in config.yaml)" if long else node


def tell_end(cfg: DictConfig, trainer: Trainer, folder: Path, end: BaseException) -> None:
    """Of a run that ends before its time: the first process tells."""
    if refusal(end, folder) is not None:
        return  # the message about it says how to go on
    if is_first_process():
        print(farewell(cfg, trainer, folder, end), file=sys.stderr)
    elif isinstance(end, Stopped) and end.together:
        end.code = 0
    if isinstance(end, Stopped):
        end.told = True


def farewell(cfg: DictConfig, trainer: Trainer, folder: Path, end: BaseException) -> str:
    """What is said of a run that ends before its time."""
    how = f"stopped by {end.signal}" if isinstance(end, Stopped) else "the run ended"
    when = f"after step {trainer.global_step}" if trainer.global_step else "before its first step"
    kept = newest_first(folder / "checkpoints")
    go_on = f"go on with: {resume_command(cfg, folder)}"
    left = f"{plain(shown(kept[0]))} is kept, {go_on}" if kept else "nothing is kept"
    return f"{how} {when}; {left}"


def conclude(cfg: DictConfig, run: Run, trainer: Trainer, folder: Path) -> float | None:
    """Test the best checkpoint, save everything, say where it is. -> the monitored metric's best value"""
    try:
        return finish_run(cfg, run, trainer, folder)
    except Stopped as end:
        tell_end(cfg, trainer, folder, end)
        raise


def finish_run(cfg: DictConfig, run: Run, trainer: Trainer, folder: Path) -> float | None:
    """As `conclude`."""
    task, datamodule = run.task, run.datamodule
    results: dict[str, float] = {"train/epochs": trainer.current_epoch, "train/steps": trainer.global_step}
    kept = next((callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)), None)
    score = None
    if kept is not None and kept.best_model_path:
        saved: Any = trainer.strategy.load_checkpoint(kept.best_model_path, weights_only=True)
        trainer.strategy.load_model_state_dict(saved)  # of a sharded model it is done by then
        if kept.best_model_score is not None:
            score = results[cfg.monitor.metric] = float(kept.best_model_score)
    elif kept is not None and kept.monitor is not None:
        say(f"validation never came: there is no best {cfg.monitor.metric}, and the last weights are kept")
    tested = bool((datamodule.table.split == "test").any()) and cfg.trainer.limit_test_batches != 0
    if tested:
        trainer.test(task, datamodule=datamodule, verbose=False)
    results |= task.results | {"train/duration_s": round(time.time() - run.started, 3)}
    gather(trainer, task, datamodule)
    if isinstance(trainer.strategy, FSDP2Strategy):
        task.model = trainer.strategy.whole(task.model)
    if not trainer.is_global_zero:
        return score
    results |= zero_shot_after_training(task, datamodule) if tested else {}
    if task.nonfinite.skipped:
        results["train/skipped_steps"] = task.nonfinite.skipped
    results |= count_faults(datamodule)
    monitored = {cfg.monitor.metric: cfg.monitor.mode == "max"}
    write_metrics(folder, results, task.directions() | monitored)  # before anything that may fail
    saved = _weights.leave_adapter(cfg, task.model, folder)
    saved |= {"model": folder / "model", "config": folder / "config.yaml"}
    save_model(cfg, run, folder / "model", results)
    rows = datamodule.rows("test").tolist() if tested else []
    saved |= save_results(folder, results, task, datamodule, rows, truth=True, directions=monitored)
    _loggers.finish(trainer, task, results, saved)
    kept = task.kept(OmegaConf.to_container(cfg.task, resolve=True))
    commands = next_commands(cfg, folder, measurable=bool(kept or cfg.model.heads))
    _results.print_results(results, list(task.model.heads) or [""], folder, saved, commands)
    return score


def next_commands(cfg: DictConfig, folder: Path, measurable: bool) -> list[str]:
    """What one may want to type now. measurable: the model, without more training"""
    model = shown(folder / "model")
    length = "max_epochs" if (cfg.trainer.max_epochs or 0) > 0 else "max_steps"
    data = HydraConfig.get().runtime.choices.get("datamodule")
    use = [
        f"{command('mm', 'evaluate', f'checkpoint={model}', f'datamodule={data}')} ..."
        if measurable
        else f"{command('mm', 'train', f'model.init_from={model}')} ..."
    ]
    if cfg.model.heads:
        use += [command("mm", "predict", f"checkpoint={model}", "datamodule=manifest", "datamodule.path=new.csv")]
    return [
        *use,
        resume_command(cfg, folder, f"trainer.{length}={2 * max(1, cfg.trainer[length])}"),
    ]


def gather(trainer: Trainer, task: Any, datamodule: Any) -> None:
    """The first process takes over what the others have decoded; each learns what all found wrong or too long."""
    if trainer.world_size == 1:
        return
    everyone: list[Any] = [None] * trainer.world_size
    decoded = None if trainer.is_global_zero else task.decoded.hand_over()
    torch.distributed.all_gather_object(everyone, (decoded, datamodule.faults, datamodule.long))
    for decoded, faults, long in everyone:
        if decoded is not None and trainer.is_global_zero:
            task.decoded.take(decoded)
        datamodule.faults |= faults
        datamodule.long |= long


def trained_model(cfg: DictConfig, run: Run, results: dict[str, Any]) -> TrainedModel:
    """Return the model of a run, with the weights as they are now and all that a model directory holds.

    Args:
        cfg: The finished config.
        run: Data and task.
        results: Metrics for the model card.
    """
    table, task = run.datamodule.table, run.task
    counts = count_splits(run.datamodule)
    return TrainedModel(
        task.model,
        run.datamodule.transforms,
        run.datamodule.readers,
        table.spec,
        metrics=run.metrics,
        columns=dict(run.datamodule.columns) or None,
        task=task.kept(OmegaConf.to_container(cfg.task, resolve=True)),
        split=asdict(run.datamodule.split),
        rows=run.datamodule.fingerprint.tensors(),
        card=model_card(["mm", *sys.argv[1:]], table.source, counts, results, task.model),
    )


def save_model(cfg: DictConfig, run: Run, path: Path, results: dict[str, Any]) -> None:
    """Write the model directory of a run, with the weights as they are now."""
    trained_model(cfg, run, results).save(path)
