"""A table file whose rows name texts, pictures and sounds, in any mixture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.base import DataModule
from datamodules.cells import read_any, read_cells
from datamodules.columns import make_table
from datamodules.table import Table


class ManifestDataModule(DataModule):
    """Rows of a CSV, TSV, JSONL or Parquet file; media paths are relative to it.

    folder: a modality, where the path may also be a folder of such files: CLASS/FILE, or SPLIT/CLASS/FILE; columns: as
    in conf/datamodule/manifest.yaml; quotes: whether fields may be quoted (null: in CSV yes, in TSV no); header: the
    columns' names, where a CSV or TSV file has no line of them.
    """

    def __init__(
        self,
        path: str,
        columns: Mapping[str, Any],
        folder: str | None = None,
        quotes: bool | None = None,
        header: Sequence[str] | None = None,
        **shared: Any,
    ):
        super().__init__(**shared)
        self.path = Path(path)
        self.columns = columns
        self.folder = folder
        self.quotes = quotes
        self.header = header

    def read(self) -> Table:
        if self.folder is None:
            cells = read_cells(self.path, self.quotes, self.header)
        else:
            cells = read_any(self.path, self.folder, self.quotes, self.header, flat=self.whole)
        return make_table(cells, self.path, self.columns, self)
