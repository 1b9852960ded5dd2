"""A table file whose rows name texts, pictures and sounds, in any mixture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.base import DataModule
from datamodules.cells import read_cells
from datamodules.columns import make_table
from datamodules.table import Table


class ManifestDataModule(DataModule):
    """Rows of a CSV, TSV, JSONL or Parquet file; media paths are relative to it.

    columns: as in conf/datamodule/manifest.yaml; quotes: whether fields may be quoted (null: in CSV yes, in TSV no);
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
        return make_table(read_cells(self.path, self.quotes, self.header), self.path, self.columns, self)
