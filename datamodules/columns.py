"""Columns of cells -> the Table of a datamodule."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.base import DataModule, unlabelled
from datamodules.cells import Cells, nearest
from datamodules.splitting import check_split, make_split
from datamodules.table import Fault, Table
from datamodules.targets import encode, shown, text_of
from mm.types import MODALITIES, DataSpec, InputData

LARGEST = 256  # pixels; images of one size up to this are read at it, others at USUAL
USUAL = (224, 224)


def make_table(cells: Cells, source: Path, columns: Mapping[str, Any], module: DataModule) -> Table:
    """Resolve the columns, check what can be checked without decoding, split, and encode the targets.

    Errors: ValueError where a column does not exist, or, under on_error=raise, for the first row that is wrong.
    """
    inputs = input_columns(cells, columns)
    targets = target_columns(cells, columns)
    roles = {role: columns.get(role) or (role if role in cells else None) for role in ("id", "split", "group")}
    used = [*(c for c, _ in inputs.values()), *(c for c, _ in targets.values()), *filter(None, roles.values())]
    for column in used:
        if column not in cells:
            raise ValueError(
                f"{source}: no column '{column}'; there are {shown(list(cells), 30)}{nearest(column, list(cells))}"
            )
    count = len(next(iter(cells.values())))
    ids = [text_of(c) for c in cells[roles["id"]]] if roles["id"] else [str(row) for row in range(count)]
    raw = {name: read_input(cells[column], modality, source.parent) for name, (column, modality) in inputs.items()}
    faults = duplicates(ids, roles["id"] or "id")
    for name, (column, modality) in inputs.items():
        faults += missing_files(raw[name], column) if modality != "text" else []
    split = find_split(cells, roles, targets, module, source)
    # Rows that are dropped leave their split before the classes are counted.
    if module.on_error == "drop":
        split[[f.row for f in faults]] = ""
    elif module.on_error == "missing":
        for fault in faults:
            for name, (column, _) in inputs.items():
                if column == fault.column:
                    raw[name][fault.row] = None
            if fault.column == (roles["id"] or "id"):  # no cell stands in for an id
                split[fault.row] = ""
    table = Table(
        inputs=raw,
        targets={},
        ids=ids,
        split=split,
        spec=DataSpec(inputs={n: look(raw[n], modality, source) for n, (_, modality) in inputs.items()}, targets={}),
        source=source.name,
        columns={name: column for name, (column, _) in inputs.items()},
        faults=faults,
    )
    for name, (column, separator) in targets.items():
        add_target(table, name, cells[column], column, separator, module)
    return table


def input_columns(cells: Cells, columns: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Input name -> column, modality."""
    found = {m: (str(columns[m]), m) for m in MODALITIES if columns.get(m)}
    for name, full in (columns.get("inputs") or {}).items():
        modality = full.get("modality")
        if modality not in MODALITIES or not full.get("column"):
            raise ValueError(
                f"datamodule.columns.inputs.{name}: got {dict(full)}, wanted {{column: ..., modality: text|vision|audio}}"
            )
        found[name] = (full["column"], modality)
    if not found:  # no input is named: columns that bear a modality's name are taken
        found = {m: (m, m) for m in MODALITIES if m in columns and m in cells}
    if not found:
        raise ValueError(
            "datamodule.columns: no input column is named; set datamodule.columns.text, .vision or .audio to one of "
            f"{shown(list(cells), 30)}"
        )
    return found


def target_columns(cells: Cells, columns: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Target name -> column, separator of several labels."""
    found = {"target": (str(columns["target"]), "|")} if columns.get("target") else {}
    for name, full in (columns.get("targets") or {}).items():
        if isinstance(full, str):
            found[name] = (full, "|")
        elif full and full.get("column"):
            found[name] = (full["column"], full.get("separator", "|"))
        else:
            raise ValueError(f"datamodule.columns.targets.{name}: got {full}, wanted a column, or {{column: ..., separator: ...}}")
    return found or ({"target": ("target", "|")} if "target" in cells else {})


def read_input(cells: Sequence[Any], modality: str, root: Path) -> list[Any]:
    """Cells -> raw inputs: texts as they are, paths made relative to the manifest's folder."""
    if modality == "text":
        return ["" if c is None else c for c in cells]
    return [str(root / text_of(c)) if text_of(c) else None for c in cells]


def duplicates(ids: Sequence[str], column: str) -> list[Fault]:
    """Every row whose id an earlier row has."""
    if max(Counter(ids).values()) == 1:
        return []
    first: dict[str, int] = {}
    return [
        Fault(row, column, f"the id '{name}' is also that of row {first[name]}")
        for row, name in enumerate(ids)
        if first.setdefault(name, row) != row
    ]


def missing_files(paths: Sequence[str | None], column: str) -> list[Fault]:
    """Every row whose file does not exist: told at the start, not an hour into the epoch."""
    return [Fault(row, column, f"no file {p}") for row, p in enumerate(paths) if p is not None and not os.path.isfile(p)]


def find_split(
    cells: Cells, roles: Mapping[str, str | None], targets: Mapping[str, tuple[str, str]], module: DataModule, source: Path
) -> np.ndarray:
    """From the split column; else, or where it names no validation rows, made."""
    count = len(next(iter(cells.values())))
    if module.whole and roles["split"] is None:
        return np.full(count, "test", dtype=object)
    class_column = next((column for name, (column, _) in targets.items() if module.kinds.get(name) == "class"), None)
    labels = np.array([text_of(c) for c in cells[class_column]]) if class_column else None
    groups = None
    if roles["group"]:  # a row without a group is one of its own
        groups = np.array([text_of(c) or f"\0{row}" for row, c in enumerate(cells[roles["group"]])])
    if roles["split"] is None:
        return make_split(count, module.split, labels, groups)
    split = check_split([text_of(c) for c in cells[roles["split"]]], source.name)
    train = np.flatnonzero(split == "train")
    if len(train) and module.split.val and not module.whole and not (split == "val").any():
        part = replace(module.split, test=0)
        take = [None if x is None else x[train] for x in (labels, groups)]
        split[train] = make_split(len(train), part, *take)
    return split


def add_target(table: Table, name: str, cells: Sequence[Any], column: str, separator: str, module: DataModule) -> None:
    """Encode one target into the table."""
    train = table.split == "train"
    known = module.labels.get(name)
    values, data, faults = encode(module.kinds.get(name, "class"), column, cells, train, known, separator)
    faults = [f for f in faults if table.split[f.row] != ""]
    if module.on_error == "drop":
        table.split[[f.row for f in faults]] = ""
    for fault in faults:
        values[fault.row] = unlabelled(values[:1])[0]
    table.targets[name] = values
    table.spec.targets[name] = data
    table.faults += faults


def look(raw: Sequence[Any], modality: str, source: Path) -> InputData:
    """What sixteen readable samples, spread over the rows, say of an input."""
    if modality == "text":
        return InputData(modality="text")
    paths = [p for p in raw if p is not None and os.path.isfile(p)]
    if not paths:
        raise ValueError(f"{source}: the input of modality {modality} has no file that exists")
    paths = [paths[i] for i in sorted(set(np.linspace(0, len(paths) - 1, 16).astype(int).tolist()))]
    if modality == "audio":
        import soundfile

        infos = [info for p in paths if (info := _probe(soundfile.info, p, soundfile.LibsndfileError))]
        rate = Counter(i.samplerate for i in infos).most_common(1)[0][0] if infos else 16_000
        return InputData(modality="audio", sample_rate=rate)
    from PIL import Image

    images = [image for p in paths if (image := _probe(Image.open, p, OSError))]
    sizes = {image.size[::-1] for image in images}
    size = sizes.pop() if len(sizes) == 1 else USUAL
    grey = bool(images) and all(image.mode in ("1", "L") or image.mode.startswith("I") for image in images)
    for image in images:
        image.close()
    return InputData(modality="vision", size=size if max(size) <= LARGEST else USUAL, channels=1 if grey else 3)


def _probe(read: Any, path: str, error: type[Exception]) -> Any:
    """None where the file is broken: its row is named when it is read."""
    try:
        return read(path)
    except error:
        return None
