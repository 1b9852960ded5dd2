"""Sounds alone: a folder per class, or a table file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.base import DataModule
from datamodules.cells import read_any
from datamodules.columns import make_table
from datamodules.table import Table


class AudioDataModule(DataModule):
    """Files of a folder (CLASS/FILE, or SPLIT/CLASS/FILE), or rows of a CSV, TSV, JSONL or Parquet file.

    columns: as in conf/datamodule/audio.yaml; quotes: whether fields may be quoted (null: in CSV yes, in TSV no);
    header: the columns' names, where a CSV or TSV file has no line of them.
    """

    def __init__(
        self,
        path: str,
        columns: Mapping[str, Any],
        quotes: bool | None = None,
        header: Sequence[str] | None = None,
        **shared: Any,
    ):
        super().__init__(**shared)
        self.path = Path(path)
        self.columns = columns
        self.quotes = quotes
        self.header = header

    def read(self) -> Table:
        cells = read_any(self.path, "audio", self.quotes, self.header, flat=self.whole)
        return make_table(cells, self.path, self.columns, self)
