"""A table of validation rows on W&B, with inputs, predictions and true targets."""

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
    """Log `val/samples`, a table of validation rows with inputs, predictions and true targets, to Weights & Biases.

    The columns are the ID of the row; every raw input, as the model reads it (of several windows the first one, but
    texts completely); and for each head the prediction, its probability if the head has one, and the true value. Other
    loggers get no table.

    Args:
        rows: Number of rows. The first ones of the validation split are used.

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
        """Log the table once, on rank 0, when the final weights are loaded.

        Lightning has no hook for this moment, and a table per validation would upload the same media every time. No
        collective operation is used, because the model is called directly rather than through its DDP or FSDP wrapper.

        Args:
            trainer: The Trainer.
            task: The task with the final weights.
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
        """Return the columns of the table: name to one cell per row.

        Args:
            trainer: The Trainer.
            task: The task.
            rows: Indices of the rows.
        """
        data = data_source(trainer)
        # Read in this process: the rows are few, and the loader would yield only those of this rank.
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
    """Predict the rows of a batch with the model, in eval mode and without compilation.

    Args:
        trainer: The Trainer, for its device and precision.
        task: The task.
        batch: The batch.

    Returns:
        The index in the batch of each row's first window, and head name to the decoded predictions, one per row.
    """
    model: Any = task.model
    home, device = next(model.parameters()).device, trainer.strategy.root_device
    modes = {module: module.training for module in model.modules()}
    precision = trainer.precision_plugin
    moved = precision.convert_input(move_data_to_device(batch, device))
    try:
        # Without compilation, which would be repeated for this batch size.
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
    """Convert the preview of an input into an object that W&B displays.

    Args:
        shown: An image, a sound, or a plain value.
    """
    from PIL.Image import Image

    wandb = require("wandb", "wandb")

    if isinstance(shown, Image):
        return wandb.Image(shown)
    if isinstance(shown, Sound):
        return wandb.Audio(shown.samples, sample_rate=shown.sample_rate)
    return shown


def probability(answer: Mapping[str, Any]) -> Any:
    """Return the probability of a prediction as a cell: a number, or one per label as in "cat 0.93, dog 0.61".

    Args:
        answer: A decoded prediction.

    Returns:
        The cell; None if the head gives no probability.
    """
    given, chosen = answer.get("probability"), answer["prediction"]
    if isinstance(given, Mapping):
        if isinstance(chosen, str):
            return given[chosen]
        return ", ".join(f"{label} {given[label]:.2f}" for label in chosen)
    return cell(given)


def cell(value: Any) -> Any:
    """Convert a value into a readable cell; lists become strings, because all cells of a column need the same type."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple) and all(isinstance(x, str) for x in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False, default=str)
