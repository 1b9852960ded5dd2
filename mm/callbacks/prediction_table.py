"""Validation rows as a table on W&B: what went in, what came out, what is true."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.loggers import WandbLogger

from mm.data_source import data_source
from mm.extras import require
from mm.modalities import Sound, get_modality
from mm.types import Batch, Features


class PredictionTable(Callback):
    """Log `val/samples`, a table of validation rows with inputs, predictions and truth, to Weights & Biases.

    Its columns are id; every raw input, as the model sees it (the first of several windows, of a text all); and for
    each head the prediction, its probability where there is one, and the truth. Other loggers get no table.

    Args:
        rows: Number of rows, the first ones of the validation split.

    Raises:
        ValueError: If `rows` is below 1.
    """

    def __init__(self, rows: int = 16) -> None:
        if rows < 1:
            raise ValueError(
                f"callbacks.prediction_table.rows: got {rows}, wanted at least 1; for no table: "
                "~callbacks.prediction_table"
            )
        self.rows = rows

    def log_table(self, trainer: Trainer, task: LightningModule) -> None:
        """Once, by rank zero, when the weights that are kept are loaded.

        Lightning has no hook for that moment, and a table per validation would upload the same media every time. No
        collective is called: the model itself is asked, not what wraps it.
        """
        watching = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
        rows = np.flatnonzero(data_source(trainer).splits == "val")[: self.rows].tolist()
        if not watching or not rows:
            return
        wandb = require("wandb", "wandb")  # slow to import

        columns = self.columns(trainer, task, rows)
        data: Any = [list(line) for line in zip(*columns.values(), strict=True)]
        for logger in watching:
            samples = wandb.Table(columns=list(columns), data=data)
            logger.experiment.log({"val/samples": samples, "trainer/global_step": trainer.global_step})

    def columns(self, trainer: Trainer, task: LightningModule, rows: list[int]) -> dict[str, list[Any]]:
        """Name of the column -> a cell per row."""
        data = data_source(trainer)
        # Read here, not by workers: few rows, and this process's share of the loader would leave out the others'.
        batch = data.batch(rows)
        first, answers = predict(trainer, task, batch)
        columns: dict[str, list[Any]] = {"id": [data.ids[row] for row in rows]}
        for name, about in data.spec.inputs.items():
            x, mask = batch.inputs[name], batch.masks[name]
            modality = get_modality(about.modality)
            if isinstance(x, Features) and modality.in_files:
                continue
            raw, preview, transform = data.inputs[name], modality.preview, data.transforms[name]
            columns[name] = [
                media(preview(raw[row], x[i], mask[i], transform)) if mask[i].any() else None
                for row, i in zip(rows, first, strict=True)
            ]
        for name, said in answers.items():
            columns[f"{name}/prediction"] = [cell(answer["prediction"]) for answer in said]
            if any("probability" in answer for answer in said):
                columns[f"{name}/probability"] = [probability(answer) for answer in said]
            columns[f"{name}/truth"] = [cell(data.truth(name, row)) for row in rows]
        return columns


@torch.no_grad()
def predict(trainer: Trainer, task: LightningModule, batch: Batch) -> tuple[list[int], dict[str, list[dict[str, Any]]]]:
    """-> where each row's first window stands in the batch; head name -> what it says of each row"""
    model: Any = task.model
    home, device = next(model.parameters()).device, trainer.strategy.root_device
    modes = {module: module.training for module in model.modules()}
    precision = trainer.precision_plugin
    moved = precision.convert_input(move_data_to_device(batch, device))
    try:
        # Not compiled: it would be compiled anew for this batch size.
        with precision.forward_context(), torch.compiler.set_stance("force_eager"):
            model.to(device).eval()
            output = model(moved.inputs, moved.masks)
            merged = model.merge(output, moved)
            answers = model.decode(merged)
    finally:
        model.to(home)
        for module, mode in modes.items():
            module.training = mode
    return merged.first.tolist(), answers


def media(shown: Any) -> Any:
    """Return what a modality shows of an input as W&B shows it."""
    from PIL.Image import Image

    wandb = require("wandb", "wandb")

    if isinstance(shown, Image):
        return wandb.Image(shown)
    if isinstance(shown, Sound):
        return wandb.Audio(shown.samples, sample_rate=shown.sample_rate)
    return shown


def probability(answer: Mapping[str, Any]) -> Any:
    """Of what was predicted: a number, or per label, as in "cat 0.93, dog 0.61"; None where the head gives none."""
    given, chosen = answer.get("probability"), answer["prediction"]
    if isinstance(given, Mapping):
        if isinstance(chosen, str):
            return given[chosen]
        return ", ".join(f"{label} {given[label]:.2f}" for label in chosen)
    return cell(given)


def cell(value: Any) -> Any:
    """What a table can hold and a person can read; a column keeps one type, so that lists become text."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple) and all(isinstance(x, str) for x in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False, default=str)
