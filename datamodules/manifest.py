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
from mm.types import MODALITIES

# What a column may be.
ROLES = (*MODALITIES, "inputs", "target", "targets", "id", "split", "group")


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
        self.columns = column_map(columns, "datamodule.columns")
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
        given = column_map(source.columns, "columns", f" of {source.path}")
        return dict.fromkeys(self.columns) | given | own


def column_map(columns: Mapping[str, Any], key: str, of: str = "") -> dict[str, Any]:
    """Check which roles columns are given, and what with.

    Args:
        columns: Role to column, as in conf/datamodule/manifest.yaml.
        key: Where it is set, for messages.
        of: The end of the key in messages, where a file has columns of its own.

    Returns:
        The same; `targets` that are a list are named by their columns.

    Raises:
        ValueError: If a role is unknown, or a value is of the wrong kind; the message names the role.
    """
    if not isinstance(columns, Mapping):
        raise ValueError(f"{key}{of}: got {columns!r}, wanted a mapping, such as {{text: words, target: label}}")
    found = dict(columns)
    for role, value in columns.items():
        if role not in ROLES:
            raise ValueError(
                f"{key}.{role}{of}: nothing reads it, wanted some of {listing(list(ROLES))}, inputs and targets of "
                f"other names under inputs and targets{near(str(role), ROLES)}"
            )
        if role == "targets" and isinstance(value, Sequence) and not isinstance(value, str):
            if not all(isinstance(column, str) for column in value):
                raise ValueError(f"{key}.targets{of}: got {list(value)}, wanted columns, or {{name: column}}")
            found["targets"] = {column: column for column in value}
        elif role in ("inputs", "targets") and value is not None and not isinstance(value, Mapping):
            such = "{label: column}" if role == "targets" else "{premise: {column: s1, modality: text}}"
            raise ValueError(f"{key}.{role}{of}: got {value!r}, wanted a mapping, such as {such}")
    return found
