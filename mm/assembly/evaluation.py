"""Functions of the verb `mm evaluate`, which evaluates the heads, the retrieval or the frozen vectors of a model."""

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
    """Settings and model of one evaluation.

    Attributes:
        cfg: The config.
        folder: The run folder.
        provenance: The command and the keys that it sets.
        model: The trained model.
        probes: The evaluations of frozen vectors: zero-shot, few-shot and linear probes.
    """

    cfg: DictConfig
    folder: Path
    provenance: Provenance
    model: TrainedModel
    probes: Probes


def evaluate_config(cfg: DictConfig, folder: Path, provenance: Provenance) -> TestReport | None:
    """Evaluate the model directory that a config names, and write the results into the run folder.

    A model that was trained for retrieval is evaluated for retrieval. For any other model, the heads are evaluated, or,
    with `zero_shot`, `few_shot` or `linear_probe`, its frozen vectors.

    Args:
        cfg: The config of `mm evaluate`.
        folder: The run folder.
        provenance: The command and the keys that it sets.

    Returns:
        The report in rank 0; None in other processes.

    Raises:
        ValueError: If a setting is invalid, or does not apply to this kind of model.
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
    """Evaluate the heads of a model for subsets of its inputs and, with `cfg.robustness`, for corrupted inputs."""
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
    """Check `cfg.robustness` against the model and the data, before the evaluation starts.

    Args:
        cfg: The config.
        model: The trained model.
        data: The data for the evaluation.
        metrics: Head name to its metrics by name.

    Returns:
        The planned robustness evaluation.

    Raises:
        ValueError: If a setting is invalid, or does not fit the model or the data.
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
    """Evaluate the retrieval of a model with aligned inputs, and its frozen vectors."""
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
    """Evaluate the frozen vectors of the encoders of any other model, for the targets that the user names.

    It runs in rank 0 only, and returns None in other processes.
    """
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
    """Check that only those settings of the trainer are set that the evaluation of frozen vectors uses.

    Args:
        trainer: The Trainer; its device and its precision are used.
        typed: The keys that the user or an experiment sets.

    Raises:
        ValueError: If another key of the trainer is set, or if the trainer has several processes.
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
    """Refuse keys of the task, such as `task.modality_subsets`, for a model that does not use them.

    Args:
        provenance: The command and the keys that it sets.
        kind: Description of the kind of model, for the message.

    Raises:
        ValueError: If a key of the task is set.
    """
    for named in provenance.named:
        if named.key.startswith("task."):
            raise ValueError(f"{named.key}: nothing reads it of a model {kind}; leave it out")
