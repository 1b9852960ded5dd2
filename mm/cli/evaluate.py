"""Measure a model directory on data, for every subset of its inputs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm.cli._app import launch
from mm.messages import is_first_process, plain

if TYPE_CHECKING:
    from lightning import Trainer
    from omegaconf import DictConfig

    from mm.checkpoint import TrainedModel
    from mm.evaluation import Probes

TRAINER_KEYS = ("trainer.accelerator", "trainer.devices", "trainer.precision")  # those that probes read


def main(argv: list[str]) -> None:
    launch("evaluate", argv, job)


def job(cfg: "DictConfig", folder: Path) -> None:
    from omegaconf import OmegaConf

    from mm.cli import _apply, _named_keys
    from mm.evaluation import Probes

    config: Any = OmegaConf.to_container(cfg)
    for named in _named_keys.named_keys():
        group = named.key.split(".")[0]
        if group in ("few_shot", "zero_shot") and config[group]["target"] is None:
            raise ValueError(f"{named.key}: nothing reads it without {group}.target=TARGET, whose classes are measured")
    probes = Probes.from_config(config)
    model = _apply.load(cfg)
    if "retrieval" in model.task:
        evaluate_retrieval(cfg, probes, model, folder)
    elif probes.targets:
        evaluate_probes(cfg, probes, model, folder)
    else:
        evaluate_heads(cfg, model, folder)


def evaluate_heads(cfg: "DictConfig", model: "TrainedModel", folder: Path) -> None:
    """Measure the heads of a model, for subsets of its inputs and perhaps while inputs are corrupted."""
    from mm import checkpoint
    from mm.cli import _apply, _robustness

    if not len(model.model.heads):
        raise ValueError(
            f"{model.path}: nothing of this model can be measured by itself: it was trained on inputs without labels; "
            "train it further, with model.init_from, or name a target with few_shot.target or linear_probe"
        )
    data = _apply.datamodule(cfg, model, labelled=True)
    _apply.warn_of_trained_rows(model, data, cfg.split)
    configs = model.metrics
    metrics = {head: checkpoint.build_metrics(node, list(cfg.allow)) for head, node in configs.items()}
    study = None if cfg.get("robustness") is None else _robustness.plan(cfg, model, data, metrics)
    task, trainer = _apply.test(cfg, model, data, cfg.split, metrics=metrics)
    if study is not None:
        _robustness.run(study, trainer, task, folder)
    _apply.conclude(trainer, task, data, data.rows(cfg.split).tolist(), folder, truth=True)


def evaluate_retrieval(cfg: "DictConfig", probes: "Probes", model: "TrainedModel", folder: Path) -> None:
    """Measure retrieval of a model of aligned inputs, and what its vectors are good for."""
    from omegaconf import open_dict

    from mm import checkpoint
    from mm.assembly.construct import escape
    from mm.cli import _apply
    from mm.evaluation.probing import check_probes, fit_probes, from_aligned
    from mm.evaluation.zero_shot import zero_shot_metrics
    from mm.tasks.contrastive import Ranks

    if cfg.get("robustness") is not None:
        raise ValueError("robustness: this model predicts nothing: it was trained to align its inputs; leave it out")
    refuse_subsets("that was trained to align its inputs")
    config = model.task
    retrieval = checkpoint.build(config["retrieval"], cfg.allow)
    about = {key: config[key] for key in ("label", "group")} if isinstance(retrieval, Ranks) else {}
    only = list(dict.fromkeys([*probes.targets, *filter(None, about.values())]))
    data = _apply.datamodule(cfg, model, labelled=True, only=only)
    _apply.warn_of_trained_rows(model, data, cfg.split)
    check_probes(probes, data, model.model)
    with open_dict(cfg):
        cfg.task = {"_target_": "mm.tasks.contrastive.Contrastive", **escape(about)}
    task, trainer = _apply.test(cfg, model, data, cfg.split, retrieval=retrieval)
    results, test, train = task.results, from_aligned(task.embedded, task.compared), None
    results |= zero_shot_metrics(task, data, probes.zero_shot, config["scale"])
    if probes.trains:
        _apply.again(trainer, task, data, "train")
        train = from_aligned(task.embedded, task.compared)
    task.results = results | fit_probes(probes, train, test, data, cfg.seed)
    print_few_shot(task.results)
    _apply.conclude(trainer, task, data, data.rows(cfg.split).tolist(), folder, truth=True)


def evaluate_probes(cfg: "DictConfig", probes: "Probes", model: "TrainedModel", folder: Path) -> None:
    """Measure what the encoders of any other model are good for, of targets that are named."""
    from mm.cli import _apply, _named_keys, _results, _trainer
    from mm.cli._app import save_overrides
    from mm.evaluation import probe
    from mm.runs.results import write_metrics

    if cfg.get("robustness") is not None:
        raise ValueError("robustness measures heads; zero_shot, few_shot and linear_probe leave them out: ask in turn")
    refuse_subsets("that zero_shot, few_shot or linear_probe measure")
    if not is_first_process():
        return
    trainer = _trainer.build(cfg, [], False)
    check_trainer(trainer, [named.key for named in _named_keys.named_keys()])
    data = _apply.datamodule(cfg, model, labelled=True, only=probes.targets, anew=probes.trains)
    _apply.warn_of_trained_rows(model, data, cfg.split)
    device, precision = trainer.strategy.root_device, trainer.precision_plugin.forward_context
    report = probe(model, data, probes, cfg.split, cfg.seed, device, precision)
    print_few_shot(report.metrics)
    save_overrides(folder)
    saved = {"metrics": write_metrics(folder, report.metrics, {})}
    if data.faults:
        saved["errors"] = folder / "errors.csv"
        data.write_errors(saved["errors"])
    _results.print_results(report.metrics, [""], folder, saved, [])


def print_few_shot(results: Mapping[str, float]) -> None:
    """Print a line for each few-shot accuracy, with its standard deviation over draws."""
    for name, value in results.items():
        if "/few_shot/" in name and not name.endswith("_std") and is_first_process():
            deviation = f" ± {results[f'{name}_std']:.4f}" if f"{name}_std" in results else ""
            print(f"{plain(name):40} {value:.4f}{deviation}")


def check_trainer(trainer: "Trainer", typed: Sequence[str]) -> None:
    """Refuse settings of the trainer that the passes over frozen encoders don't read.

    Args:
        trainer: As the config asks for it; its device and its precision are used.
        typed: The keys that the user set.

    Raises:
        ValueError: If another key of the trainer is set, or several processes are asked for.
    """
    passes = "zero_shot, few_shot and linear_probe"
    for key in typed:
        if key.startswith("trainer.") and key not in TRAINER_KEYS:
            raise ValueError(f"{key}: {passes} read only {', '.join(TRAINER_KEYS)}; leave it out")
    if trainer.world_size > 1:
        raise ValueError(
            f"trainer.devices: got {trainer.world_size} processes, but {passes} run in one; set trainer.devices=1"
        )


def refuse_subsets(why: str) -> None:
    """Refuse a key that only models with heads read.

    Args:
        why: What kind of model it is, for the message.

    Raises:
        ValueError: If task.modality_subsets is set.
    """
    from mm.cli import _named_keys

    for named in _named_keys.named_keys():
        if named.key.startswith("task."):
            raise ValueError(f"{named.key}: nothing reads it of a model {why}; leave it out")
