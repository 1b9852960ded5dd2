"""Runs of Weights & Biases (W&B): name and tags, summary, and the results at the end of a run."""

import os
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.loggers import WandbLogger
from omegaconf import DictConfig, open_dict

from mm.assembly.provenance import Provenance
from mm.evaluation.box_grid import NUM_FALLBACK_BOXES, BoxGrid
from mm.extras import require
from mm.messages import command

WANDB_ID = "wandb_id"  # the file of the run folder that keeps it
TABLE_COLUMNS = ("split", "subset", "metric", "value")


class WandbRunLogger(WandbLogger):
    """Lightning's W&B logger, without the metrics of a test.

    A test has a single value per metric, so W&B would show about 60 panels with one point each. `finish_wandb` writes
    the values into the summary and into a table instead.
    """

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log all metrics except those of a test."""
        kept = {name: value for name, value in metrics.items() if not is_test_metric(name)}
        if kept and not (len(kept) < len(metrics) and kept.keys() == {"epoch"}):
            super().log_metrics(kept, step)


def is_test_metric(name: str) -> bool:
    """Return whether a metric belongs to a test, such as `test/loss` or `test[text]/accuracy`."""
    return name.startswith(("test/", "test["))


def table_rows(results: Mapping[str, float]) -> list[list[Any]]:
    """Return the metrics of a test as rows of a table.

    Args:
        results: Metric name, such as `test[text]/accuracy`, to value.

    Returns:
        For each metric of a test: its split, its subset of the inputs ("all" for all inputs), its name without both,
        and its value.
    """
    rows: list[list[Any]] = []
    for name, value in results.items():
        found = re.fullmatch(r"(test)(?:\[(.*?)\])?/(.+)", name)
        if found is not None:
            split, subset, metric = found.groups()
            rows.append([split, subset or "all", metric, float(value)])
    return rows


def complete_wandb(cfg: DictConfig, node: DictConfig, folder: Path, provenance: Provenance) -> None:
    """Fill in the name, group, tags, notes and ID of a W&B run.

    The group is the sweep, the tags are the data and the experiment, and the notes are the command. Settings in
    environment variables of W&B take precedence.

    Args:
        cfg: The config.
        node: Config of the logger, changed in place.
        folder: The run folder.
        provenance: The command and the options that it chooses.
    """
    wandb = require("wandb", "wandb")
    if wandb.run is not None:  # of a job of this sweep that failed: the logger would go on with it
        wandb.finish(exit_code=1)
    sweep, choices = provenance.job is not None, provenance.choices
    defaults = {
        "name": ("WANDB_NAME", f"{cfg.run}/{provenance.job}" if sweep else cfg.run),
        "group": ("WANDB_RUN_GROUP", cfg.run if sweep else None),
        "tags": ("WANDB_TAGS", [choices[key] for key in ("datamodule", "experiment") if choices.get(key)]),
        "notes": ("WANDB_NOTES", command(*provenance.words)),
    }
    with open_dict(cfg):
        for key, (variable, value) in defaults.items():
            if node[key] is None and variable not in os.environ:
                node[key] = value
        node.id = node.get("id") or wandb_id(folder, None if sweep else os.environ.get("WANDB_RUN_ID"))
        node.resume = "allow"


def wandb_id(folder: Path, given: str | None) -> str:
    """Return the ID of a W&B run: the given one, else the one in the run folder, else a new one.

    Args:
        folder: The run folder.
        given: ID from a W&B agent or from the user.
    """
    file = folder / WANDB_ID
    return given or (file.read_text(encoding="utf-8") if file.exists() else secrets.token_hex(4))


def start_wandb(logger: WandbLogger, directions: Mapping[str, bool | None]) -> None:
    """Start the W&B run, and let its summary contain the best and the last value of every validation metric.

    Args:
        logger: The logger.
        directions: Name of each validation metric to whether higher is better; None if neither is better.

    Raises:
        ValueError: If W&B rejects the run, for example because the user has no account.
    """
    error_kind = require("wandb.errors", "wandb").Error
    try:
        run = logger.experiment
    except error_kind as error:
        raise ValueError(f"logger=wandb: {error} Without an account: WANDB_MODE=offline mm train ...") from None
    for name, higher in directions.items():
        kept = "last" if higher is None else f"{'max' if higher else 'min'},last"
        run.define_metric(name, step_metric="trainer/global_step", step_sync=True, summary=kept)


def finish_wandb(
    run: Any,
    trainer: Trainer,
    figures: Mapping[str, Any],
    results: Mapping[str, float],
    saved: Mapping[str, Path],
    validated: Mapping[str, bool | None],
) -> None:
    """Log figures, a table of test metrics, the model directory as an artifact and all results, and end the W&B run.

    Args:
        run: The W&B run.
        trainer: The Trainer.
        figures: The figures of the test by name, or functions that draw them.
        results: Metric name to value.
        saved: Kind of each file to its path.
        validated: Names of the validation metrics, whose best and last values are already in the summary.
    """
    wandb = require("wandb", "wandb")
    make_artifact_name_safe = require("wandb.util", "wandb").make_artifact_name_safe

    files = {name: saved.get(name.replace("/", "_")) for name in figures}
    logged: dict[str, Any] = {name: wandb.Image(str(file)) for name, file in files.items() if file is not None}
    # Instead of the file, W&B gets images whose boxes it can filter.
    logged |= {name: wandb_images(figure) for name, figure in figures.items() if isinstance(figure, BoxGrid)}
    if rows := table_rows(results):
        logged["test/results"] = wandb.Table(columns=list(TABLE_COLUMNS), data=rows)
    if logged:
        run.log(logged | {"trainer/global_step": trainer.global_step})
    name = make_artifact_name_safe(run.name or run.id)
    artifact = wandb.Artifact(name, type="model")
    artifact.add_dir(str(saved["model"]))
    run.log_artifact(artifact, aliases=["latest", "best", name])
    # A name of validation is a group of numbers in the summary (`val/loss.min`, `val/loss.last`); a plain number, as a
    # sweep optimizes, has a name of its own.
    run.summary.update({f"best/{name}" if name in validated else name: value for name, value in results.items()})
    run.finish()  # else the next job of a sweep would be logged into this one


def wandb_images(grid: BoxGrid) -> list[Any]:
    """Return the images of a grid as `wandb.Image` with boxes, which W&B shows and filters by class and score.

    Boxes below the threshold are included, as a set of their own.

    Args:
        grid: The grid.
    """
    wandb = require("wandb", "wandb")

    classes = list(grid.decoding.classes)
    labels = dict(enumerate(classes))

    def data(boxes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {"box_data": [wandb_box(box, classes) for box in boxes], "class_labels": labels}

    return [
        wandb.Image(
            one.image,
            caption=one.id,
            boxes={
                "predictions": data(one.predicted),
                "low_confidence": data(one.low_confidence[:NUM_FALLBACK_BOXES]),
                "ground_truth": data(one.true),
            },
        )
        for one in grid.images()
    ]


def wandb_box(box: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Return a box in the format of `wandb.Image`, with corners in pixels."""
    corners = dict(zip(("minX", "minY", "maxX", "maxY"), map(float, box["box"]), strict=True))
    shown: dict[str, Any] = {"position": corners, "domain": "pixel", "class_id": classes.index(box["label"])}
    if "score" not in box:
        return shown | {"box_caption": box["label"]}
    return shown | {"box_caption": f"{box['label']} {box['score']:.2f}", "scores": {"score": float(box["score"])}}
