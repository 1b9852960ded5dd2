"""Evaluate a model directory on data, by the config of `mm evaluate`: heads, retrieval or probes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning import Trainer
from omegaconf import DictConfig, OmegaConf, open_dict
from torchmetrics import Metric

from mm import checkpoint
from mm.assembly.construct import build, escape
from mm.assembly.model_data import (
    TestReport,
    build_model_data,
    load_model,
    run_test,
    test_split,
    warn_of_trained_rows,
    write_test,
)
from mm.assembly.provenance import Provenance
from mm.assembly.trainer import build_trainer
from mm.checkpoint import TrainedModel
from mm.data.module import DataModule
from mm.evaluation import Probes, probe
from mm.evaluation.curves import write_curves
from mm.evaluation.frozen_vectors import from_aligned
from mm.evaluation.probing import check_probes, fit_probes
from mm.evaluation.robustness import (
    RobustnessReport,
    RobustnessRun,
    RobustnessSettings,
    measure_robustness,
    plan_robustness,
)
from mm.evaluation.zero_shot import zero_shot_metrics
from mm.messages import is_first_process
from mm.runs.results import write_metrics
from mm.tasks.contrastive import RankingMetric

TRAINER_KEYS = ("trainer.accelerator", "trainer.devices", "trainer.precision")  # those that probes read


@dataclass
class Evaluation:
    """The config of an evaluation, its model, and where the results go.

    Attributes:
        cfg: The config.
        folder: The run folder.
        provenance: How the run was started.
        model: The model.
        probes: Which targets its vectors are probed by.
    """

    cfg: DictConfig
    folder: Path
    provenance: Provenance
    model: TrainedModel
    probes: Probes


def evaluate_config(cfg: DictConfig, folder: Path, provenance: Provenance) -> TestReport | None:
    """Evaluate a model by a config, and write the results.

    Args:
        cfg: The config of `mm evaluate`.
        folder: The run folder.
        provenance: How the run was started.

    Returns:
        The report; None in other processes than the first one.

    Raises:
        ValueError: If a setting is wrong, or is none of this kind of model.
    """
    config: Any = OmegaConf.to_container(cfg)
    for named in provenance.named:
        group = named.key.split(".")[0]
        if group in ("few_shot", "zero_shot") and config[group]["target"] is None:
            raise ValueError(f"{named.key}: nothing reads it without {group}.target=TARGET, whose classes are measured")
    probes = Probes.from_config(config)
    evaluation = Evaluation(cfg, folder, provenance, load_model(cfg, provenance), probes)
    aligned = "retrieval" in evaluation.model.task
    evaluate = evaluate_retrieval if aligned else evaluate_probes if probes.targets else evaluate_heads
    return evaluate(evaluation)


def evaluate_heads(evaluation: Evaluation) -> TestReport | None:
    """Measure the heads of a model, for subsets of its inputs and perhaps while inputs are corrupted."""
    cfg, model, folder = evaluation.cfg, evaluation.model, evaluation.folder
    if not len(model.model.heads):
        raise ValueError(
            f"{model.path}: nothing of this model can be measured by itself: it was trained on inputs without labels; "
            "train it further, with model.init_from, or name a target with few_shot.target or linear_probe"
        )
    data = build_model_data(cfg, model, evaluation.provenance, labelled=True)
    warn_of_trained_rows(model, data, cfg.split)
    metrics = {head: checkpoint.build_metrics(node, list(cfg.allow)) for head, node in model.metrics.items()}
    robustness: RobustnessReport | None = None
    planned = None if cfg.get("robustness") is None else plan_config(cfg, model, data, metrics)
    task, trainer = run_test(cfg, model, data, cfg.split, folder, metrics=metrics)
    if planned is not None:
        robustness = measure_robustness(planned, trainer)
        task.results |= robustness.metrics
        task.figures["robustness"] = robustness.figure
        if trainer.is_global_zero:
            write_curves(folder / "robustness.csv", robustness.severities, robustness.curves, robustness.baseline)
    rows = data.rows(cfg.split).tolist()
    report = write_test(trainer, task, data, rows, folder, evaluation.provenance, truth=True)
    if report is not None:
        report.robustness = robustness
    return report


def plan_config(
    cfg: DictConfig, model: TrainedModel, data: DataModule, metrics: Mapping[str, Mapping[str, Metric]]
) -> RobustnessRun:
    """Check `cfg.robustness` before anything is measured.

    Args:
        cfg: The config.
        model: The model.
        data: Its data.
        metrics: Head name to its metrics by name.
    """
    config: Any = OmegaConf.to_container(cfg.robustness)
    chosen = {key: config[key] for key in ("severities", "rows", "corruptions")}
    RobustnessSettings(available={}, **chosen)  # before corruptions are built and a baseline is loaded
    available = {modality: instantiate(node, _convert_="all") for modality, node in cfg.robustness.available.items()}
    baseline = config["baseline"]
    other = None if baseline is None else checkpoint.load(baseline, list(cfg.allow))
    settings = RobustnessSettings(available=available, baseline=other, **chosen)
    make_task = build(cfg, "task", _partial_=True)
    return plan_robustness(model, data, metrics, settings, make_task, Path(cfg.paths.cache), cfg.split, cfg.seed)


def evaluate_retrieval(evaluation: Evaluation) -> TestReport | None:
    """Measure the retrieval of a model of aligned inputs, and probe its vectors."""
    cfg, model, probes = evaluation.cfg, evaluation.model, evaluation.probes
    if cfg.get("robustness") is not None:
        raise ValueError("robustness: this model predicts nothing: it was trained to align its inputs; leave it out")
    refuse_subsets(evaluation.provenance, "that was trained to align its inputs")
    config = model.task
    retrieval = checkpoint.build(config["retrieval"], cfg.allow)
    about = {key: config[key] for key in ("label", "group")} if isinstance(retrieval, RankingMetric) else {}
    only = list(dict.fromkeys([*probes.targets, *filter(None, about.values())]))
    data = build_model_data(cfg, model, evaluation.provenance, labelled=True, only=only)
    warn_of_trained_rows(model, data, cfg.split)
    check_probes(probes, data, model.model)
    with open_dict(cfg):
        cfg.task = {"_target_": "mm.tasks.contrastive.Contrastive", **escape(about)}
    task, trainer = run_test(cfg, model, data, cfg.split, evaluation.folder, retrieval=retrieval)
    results, test, train = task.results, from_aligned(task.embedded, task.compared), None
    results |= zero_shot_metrics(task, data, probes.zero_shot, config["scale"])
    if probes.trains:
        test_split(trainer, task, data, "train")
        train = from_aligned(task.embedded, task.compared)
    task.results = results | fit_probes(probes, train, test, data, cfg.seed)
    rows = data.rows(cfg.split).tolist()
    return write_test(trainer, task, data, rows, evaluation.folder, evaluation.provenance, truth=True)


def evaluate_probes(evaluation: Evaluation) -> TestReport | None:
    """Probe the vectors of the encoders of any other model, for the targets that are named."""
    cfg, model, folder = evaluation.cfg, evaluation.model, evaluation.folder
    probes, provenance = evaluation.probes, evaluation.provenance
    if cfg.get("robustness") is not None:
        raise ValueError("robustness measures heads; zero_shot, few_shot and linear_probe leave them out: ask in turn")
    refuse_subsets(provenance, "that zero_shot, few_shot or linear_probe measure")
    if not is_first_process():
        return None
    trainer = build_trainer(cfg, [], False, folder)
    check_trainer(trainer, [named.key for named in provenance.named])
    data = build_model_data(cfg, model, provenance, labelled=True, only=probes.targets, anew=probes.trains)
    warn_of_trained_rows(model, data, cfg.split)
    device, precision = trainer.strategy.root_device, trainer.precision_plugin.forward_context
    report = probe(model, data, probes, cfg.split, cfg.seed, device, precision)
    provenance.save(folder)
    files = {"metrics": write_metrics(folder, report.metrics, {})}
    if data.faults:
        files["errors"] = folder / "errors.csv"
        data.write_errors(files["errors"])
    return TestReport(report.metrics, [""], files)


def check_trainer(trainer: Trainer, typed: Sequence[str]) -> None:
    """Refuse settings of the trainer that the passes over frozen encoders don't read.

    Args:
        trainer: The trainer of the config; its device and its precision are used.
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


def refuse_subsets(provenance: Provenance, kind: str) -> None:
    """Refuse a key that only models with heads read.

    Args:
        provenance: Which keys were set.
        kind: What kind of model it is, for the message.

    Raises:
        ValueError: If task.modality_subsets is set.
    """
    for named in provenance.named:
        if named.key.startswith("task."):
            raise ValueError(f"{named.key}: nothing reads it of a model {kind}; leave it out")
