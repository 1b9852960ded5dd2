"""Baselines of the data of a config, and beside a trained model."""

from pathlib import Path
from typing import TYPE_CHECKING

from lightning import Callback, Trainer
from omegaconf import DictConfig

from mm.assembly.config_checks import check_no_training
from mm.assembly.finish import build_data, build_metrics, finish_model
from mm.assembly.provenance import Provenance
from mm.assembly.run import TrainingRun
from mm.callbacks.best_metrics import BestMetrics
from mm.messages import is_first_process
from mm.quiet import silence_lightning

if TYPE_CHECKING:
    from mm.baselines import BaselineReport

# Options of pre-trained encoders by modality, for the advice to a model that loses.
PRETRAINED = {"text": "minilm", "vision": "efficientnet_lite0", "audio": "huggingface"}


def baseline_config(cfg: DictConfig, folder: Path, provenance: Provenance) -> "BaselineReport | None":
    """Fit the baselines of a config's data, in the first process.

    Args:
        cfg: The config of `mm baseline`.
        folder: The run folder, in which metrics.json and baseline.json are written.
        provenance: The command and the keys that it sets.

    Returns:
        The report; None in other processes than the first.

    Raises:
        ValueError: If a setting is invalid, or does not fit the data.
    """
    silence_lightning()
    check_no_training(cfg, "baseline")
    if not is_first_process():
        return None
    from mm.baselines import baseline

    data = build_data(cfg)
    finish_model(cfg, data.spec, provenance.named)
    heads = list(cfg.model.heads)
    report = baseline(data, targets=heads, metrics=build_metrics(cfg), max_rows=cfg.max_rows, seed=cfg.seed)
    report.save(folder)
    provenance.save(folder)
    return report


def baseline_callbacks(cfg: DictConfig) -> list[Callback]:
    """Return the callback with which a model is compared with baselines, if `cfg.baseline` is set."""
    return [BestMetrics(cfg.monitor.metric, cfg.monitor.mode)] if cfg.get("baseline") else []


def add_baseline(run: TrainingRun, trainer: Trainer) -> dict[str, float]:
    """Fit the baselines of a run after its training, and compare the model with them.

    It communicates with no other process, so that only rank 0 needs to call it. A baseline that can't be fitted is a
    note, since it must not cost the results of the training.

    Args:
        run: The run, whose `baseline` and `notes` are set.
        trainer: The Trainer.

    Returns:
        The metrics of the baselines; empty if `cfg.baseline` is not set, or if Ctrl-C ended the training.
    """
    if not run.cfg.get("baseline") or trainer.interrupted:
        return {}
    from mm.baselines import baseline  # it imports scipy and scikit-learn, which only this needs

    model, spec = run.task.model, run.data.spec
    inputs = [name for name in model.inputs if name in spec.inputs]
    targets = [name for name in model.heads if name in spec.targets]
    try:
        report = baseline(run.data, inputs=inputs, targets=targets, metrics=run.metrics, seed=run.cfg.seed)
    except ValueError as error:
        run.notes.append(f"no baseline was fitted: {error}")
        return {}
    best = next((one.best for one in trainer.callbacks if isinstance(one, BestMetrics)), {})  # type: ignore[attr-defined]
    run.notes += [*report.notes, *compare_with_baseline(report, best, {n: spec.inputs[n].modality for n in inputs})]
    run.baseline = report if report.results else None
    return dict(report.metrics) if report.results else {}


def compare_with_baseline(
    report: "BaselineReport", validated: dict[str, float], modalities: dict[str, str]
) -> list[str]:
    """Return a sentence for each target whose model does not beat its best baseline on validation rows, and advice.

    Args:
        report: The baselines.
        validated: Validation metrics of the model.
        modalities: Input name to modality.
    """
    lines: list[str] = []
    constant = False
    for target, (metric, higher) in report.primary.items():
        best = report.best(target)
        name = f"val/{target}/{metric}" if len(report.targets) > 1 else f"val/{metric}"
        if best is None or name not in validated:
            continue
        (result, value), model_value = best, validated[name]
        if model_value > value if higher else model_value < value:
            continue
        constant |= result.name == "constant"
        lines.append(
            f"The model does not beat the baseline '{result.name}' ({result.model}) on validation rows: {name} is "
            f"{model_value:.4g}, that of the baseline {value:.4g}."
        )
    if lines:
        options = [
            f"model/encoders/{modality}={PRETRAINED[modality]}"
            for modality in dict.fromkeys(modalities.values())
            if modality in PRETRAINED
        ]
        advice = ["more epochs (trainer.max_epochs)", "another learning rate (task.optimizer.lr)"]
        advice += [f"pre-trained weights ({', '.join(options)})"] if options else []
        advice += ["a look at the labels and at what each input contributes (mm diagnose)"] if constant else []
        lines.append(f"Try {', '.join(advice)}.")
    return lines
