"""Parallel text files, such as sentences and their translations."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mm.data.columns import read_part
from mm.data.module import DataModule
from mm.data.readers.lines import read_lines
from mm.data.sources import Source, make_table
from mm.data.table import Cells, Table
from mm.modalities import modality_names


class ParallelDataModule(DataModule):
    """Parallel text files, in which the same line of each file belongs to one row.

    The files may be compressed (.gz). An empty line is an empty cell.

    Args:
        path: Split to column to file, such as {train: {text: train.en, target: train.de}}. Columns that are named after
            a modality are inputs, the others are targets.
        **shared: Arguments of `DataModule`.

    Raises:
        ValueError: If the files of a split differ in their number of lines, or if `path` does not have this form.
    """

    def __init__(self, path: Mapping[str, Mapping[str, str]], **shared: Any):
        super().__init__(**shared)
        self.path = path

    def read(self) -> Table:
        files = list(self.path.values()) if isinstance(self.path, Mapping) else []
        plain = [
            isinstance(of, Mapping) and len(of) > 0 and all(isinstance(x, str) for x in of.values()) for of in files
        ]
        if not plain or not all(plain):
            raise ValueError(
                f"datamodule.path: got {self.path}, wanted files by split and column, such as "
                "{train: {text: train.en, target: train.de}, test: {text: test.en, target: test.de}}"
            )
        names = list(dict.fromkeys(name for files in self.path.values() for name in files))
        for split, files in self.path.items():
            if split in ("train", "val") and set(files) != set(names):
                raise ValueError(f"datamodule.path.{split}: has {', '.join(files)}, wanted {', '.join(names)}")
        cells: Cells = {name: [] for name in (*names, "split")}
        for split, files in self.path.items():
            lines = {name: read_lines(Path(file)) for name, file in files.items()}
            counts = {name: len(found) for name, found in lines.items()}
            if len(set(counts.values())) > 1:
                told = ", ".join(f"{files[name]} {count}" for name, count in counts.items())
                raise ValueError(f"datamodule.path.{split}: files that go together differ in lines: {told}")
            count = max(counts.values(), default=0)
            for name in names:
                cells[name] += lines.get(name, [""] * count)
            cells["split"] += [split] * count
        targets = {name: name for name in names if name not in modality_names()}
        columns = {name: name for name in names if name in modality_names()} | {"targets": targets, "split": "split"}
        first = Path(next(iter(next(iter(self.path.values())).values())))
        return make_table([read_part(cells, first, columns, self)], [Source(str(first))], self)
