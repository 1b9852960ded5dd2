"""Conversion of columns of cells to the targets of a table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mm.batching import is_absent
from mm.cells import text_of
from mm.cells.classes import probable_duplicates
from mm.data.module import DataModule
from mm.data.splitting import keep_some
from mm.data.table import Fault, Table
from mm.messages import say
from mm.tensors import labelled
from mm.types import TargetData


def check_labelled(table: Table, targets: Sequence[str], monitor: str | None) -> None:
    """Check before training that validation and test rows can be evaluated.

    Args:
        table: The table.
        targets: Names of the predicted targets.
        monitor: Metric that chooses the best checkpoint; None: there is no validation.

    Raises:
        ValueError: If no validation row has a label and an input, or a label of the target whose metric is monitored.
    """
    for split, name in (("val", "validation"), ("test", "test")):
        rows = np.flatnonzero(table.split == split)
        bare = [target for target in targets if len(rows) and not any_labelled(table, target, rows)]
        if not bare or (split == "val" and monitor is None):
            continue
        columns = " and ".join(f"'{table.column(target, int(rows[0]))}'" for target in bare)
        what = f"{table.source}: none of the {len(rows)} {name} rows has both an input and a label in column {columns}"
        if split == "val" and (len(bare) == len(targets) or any(target in str(monitor).split("/") for target in bare)):
            raise ValueError(
                f"{what}: nothing could be measured to choose the best checkpoint ({monitor}); label some of them, "
                "name other rows with datamodule.columns.split, or set trainer.limit_val_batches=0 to train without it"
            )
        say(f"{what}: they are predicted, but not measured")


def any_labelled(table: Table, target: str, rows: np.ndarray) -> bool:
    """Return whether any of some rows has both a label of a target and an input."""
    values = table.targets[target]
    if isinstance(values, Tensor):
        rows = rows[labelled(values[rows]).numpy()]
    return any(
        bool(labelled(values[row].unsqueeze(0)).any()) and not all(is_absent(raw[row]) for raw in table.inputs.values())
        for row in rows.tolist()
    )


def any_row_labelled(values: Tensor | Sequence[Tensor], rows: np.ndarray) -> bool:
    """Return whether any of some rows has a label.

    Args:
        values: Values of a target, as in EncodedTarget.
        rows: Whether each row is one of them, (N,) bool.
    """
    chosen = np.flatnonzero(rows).tolist()
    if isinstance(values, Tensor):
        return bool(labelled(values[chosen]).any())
    return any(bool(labelled(values[row].unsqueeze(0)).any()) for row in chosen)


def add_target(table: Table, name: str, columns: Sequence[str], cells: Sequence[Any], module: DataModule) -> None:
    """Encode a target and add it to the table; invalid cells are unlabelled and recorded as errors.

    Args:
        table: The table, changed in place.
        name: Name of the target.
        columns: Column of every row, for error messages.
        cells: Cells of every row.
        module: The data module.

    Raises:
        ValueError: If no training row is labelled, or if the codec can't encode the cells.
    """
    keep_some(table, module.split)
    train, known = table.split == "train", module.known.get(name)
    if known is None and not module.draw_split and not train.any():  # all rows may say which classes there are
        train = table.split != ""
    if known is None and not any(text_of(cells[row]) for row in np.flatnonzero(train).tolist()):
        rows = "no training row is labelled" if train.any() else "there are no training rows to learn it from"
        raise ValueError(f"column '{columns[0]}': {rows}; look at datamodule.columns.target and .split")
    try:
        values, data, found, written = module.reader(name).fit(cells, train, known)
    except ValueError as error:
        raise ValueError(f"column '{columns[0]}': {error}") from None
    if known is None and found and module.on_error != "raise" and not any_row_labelled(values, train):
        row = min(found)
        raise ValueError(
            f"column '{columns[row]}': no training row has a label that can be read; the first fault is that of "
            f"{table.name(row)}: {found[row]}"
        )
    if written is not None:
        table.written[name] = written
    if known is None:
        for line in probable_duplicates(class_counts(data, values)):
            say(f"{table.source}: column '{columns[0]}': {line}")
    faults = [Fault(row, columns[row], message) for row, message in found.items() if table.split[row] != ""]
    if module.on_error == "drop":
        table.split[[fault.row for fault in faults]] = ""
    table.targets[name] = values
    table.spec.targets[name] = data
    table.faults += faults


def class_counts(data: TargetData, values: Any) -> dict[str, int]:
    """Return the classes of a target (tags without B- and I-), and the number of training rows, words or boxes of each.

    Args:
        data: Facts about the target.
        values: Values of the target, as in EncodedTarget. Boxes are counted in all rows.
    """
    counts = data.facts.get("counts", [])
    if data.kind == "boxes":
        found = torch.cat(list(values))[:, 0]
        counts = torch.bincount(found[found >= 0].long(), minlength=len(data.classes)).tolist()
    if data.kind == "tags":
        return {tag[2:]: count for tag, count in zip(data.classes, counts) if tag.startswith("B-")}
    return dict(zip(data.classes, counts)) if data.kind in ("class", "labels", "boxes") else {}
