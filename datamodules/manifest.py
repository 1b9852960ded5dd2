"""A table file whose rows name texts, pictures and sounds, in any mixture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mm.datamodules.base import DataModule
from mm.datamodules.cells import Cells, read_any, read_cells
from mm.datamodules.columns import read_part
from mm.datamodules.sources import Source, make_table, sources
from mm.datamodules.table import Table
from mm.messages import listing, near


class ManifestDataModule(DataModule):
    """Rows of CSV, TSV, JSONL, Parquet, CoNLL or plain text files, a text a line; media paths are relative to them.

    SQuAD's and COCO's JSON and VOC's folders are read as they are.
    path: a file, or several: each a path, or {path: ..., columns: ..., weight: ..., split: ..., header: ...}, where
    columns are all of its own, and split is that of all its rows; folder: a modality, where a path may also be a folder
    of such files: CLASS/FILE, or SPLIT/CLASS/FILE, or, without labels, FILE; columns: as in
    conf/datamodule/manifest.yaml; quotes: whether fields may be quoted (null: in CSV yes, in TSV no); header: the
    columns' names, where a CSV or TSV file has no line of them.
    """

    def __init__(
        self,
        path: Any,
        columns: Mapping[str, Any],
        folder: str | None = None,
        quotes: bool | None = None,
        header: Sequence[str] | None = None,
        **shared: Any,
    ):
        super().__init__(**shared)
        self.sources = sources(path, "columns", "split", "header")
        self.columns = columns
        self.folder = folder
        self.quotes = quotes
        self.header = header

    def read(self) -> Table:
        parts = [read_part(self.cells(one), Path(one.path), self.columns_of(one), self) for one in self.sources]
        return make_table(parts, self.sources, self)

    def cells(self, source: Source) -> Cells:
        """Of one file, or of a folder. Errors: ValueError where its split is told twice."""
        header = self.header if source.header is None else source.header
        if self.folder is None:
            cells = read_cells(Path(source.path), self.quotes, header)
        else:
            unlabelled = self.whole or not self.readers
            cells = read_any(Path(source.path), self.folder, self.quotes, header, flat=unlabelled)
        if source.split is not None:
            if "split" in cells:
                raise ValueError(f"datamodule.path: {source.path} has a column 'split' already; leave out its split")
            cells["split"] = [source.split] * len(next(iter(cells.values())))
        return cells

    def columns_of(self, source: Source) -> Mapping[str, Any]:
        """Those of one file. Errors: ValueError where it names one that there is none of."""
        own = {} if source.split is None else {"split": "split"}
        if source.columns is None:
            return {**self.columns, **own}
        for role in source.columns:
            if role not in self.columns:
                raise ValueError(
                    f"datamodule.path: columns.{role} of {source.path}: nothing reads it, wanted some of "
                    f"{listing(list(self.columns))}{near(str(role), self.columns)}"
                )
        return dict.fromkeys(self.columns) | dict(source.columns) | own
