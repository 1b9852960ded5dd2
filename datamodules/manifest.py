"""Data of a table file whose rows contain texts, numbers, and paths of images and sounds, in any combination."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mm.data.columns import read_part
from mm.data.module import DataModule
from mm.data.readers.box_rows import PictureRows, group_boxes
from mm.data.readers.delimited import TableFormat
from mm.data.readers.files import read_any, read_cells
from mm.data.readers.in_memory import read_table
from mm.data.sources import Source, make_table, sources
from mm.data.table import Cells, Table
from mm.messages import listing, near
from mm.modalities import modality_names

# Roles of columns besides the names of modalities.
ROLES = ("inputs", "target", "targets", "boxes", "id", "split", "group")


class ManifestDataModule(DataModule):
    """Data of a table: CSV, TSV, JSONL, Parquet, CoNLL or plain text files, folders, or a table in memory.

    Paths in cells are relative to the file, or to the current folder for tables in memory. The JSON files of SQuAD and
    COCO, and the folders of VOC and YOLO are read without conversion, and tables with a row per box if a target is
    boxes.

    Args:
        path: A file, or a table in memory: a pandas or polars DataFrame, a pyarrow Table, or a list of rows, each a
            mapping of column to cell. It may also be a list of several sources; each is a path, or {path, columns,
            weight, split, column_names}, where `columns` replaces the argument of that name and `split` is the split of
            all its rows.
        columns: Role to column, as in conf/datamodule/manifest.yaml: {"text": "words", "target": "label", "id": "no"}.
            "boxes" names the columns of a table with a row per box: four columns, or {columns, format, unit,
            class_name} as in `mm.data.readers.box_columns.BoxColumns`; False: every row is one.
        folder: A modality; with it, a path may also be a folder of files of this modality: CLASS/FILE,
            SPLIT/CLASS/FILE, or FILE.
        quoting: Whether fields may be quoted. Default: True for CSV files, False for TSV files.
        column_names: Names of the columns of a CSV or TSV file without a header line, such as [text, label].
        delimiter: Character between the fields of CSV and TSV files. Default: a comma in .csv files, a tab in .tsv
            files.
        encoding: Text encoding of CSV and TSV files, such as "latin-1". Default: UTF-8.
        media_root: Folder to which paths in cells are relative. Default: the folder of the file.
        inputs: Names of the inputs to use. Or, instead of `columns`, input name to column: {"text": "words"}; an input
            that is not named after its modality is written as {"premise": {"column": "s1", "modality": "text"}}.
        targets: Target name to column, or names of target columns; this replaces `columns` for targets.
        **shared: Settings of every data module; see `DataModule`.

    Example:
        >>> data = ManifestDataModule([{"text": "fine", "mood": "good"}] * 10, targets=["mood"])
        >>> list(data.spec.inputs), data.spec.targets["mood"].classes
        (['text'], ('good',))
    """

    def __init__(
        self,
        path: Any,
        columns: Mapping[str, Any] | None = None,
        folder: str | None = None,
        quoting: bool | None = None,
        column_names: Sequence[str] | None = None,
        delimiter: str | None = None,
        encoding: str | None = None,
        media_root: str | None = None,
        inputs: Sequence[str] | Mapping[str, Any] | None = None,
        targets: Sequence[str] | Mapping[str, str] | None = None,
        **shared: Any,
    ):
        named = {} if columns is None else column_map(columns, "datamodule.columns")
        if isinstance(inputs, Mapping):
            named |= input_roles(inputs, named)
            inputs = None
        if targets is not None:
            named |= column_map({"targets": [targets] if isinstance(targets, str) else targets}, "datamodule")
        super().__init__(inputs=inputs, **shared)
        self.sources = sources(path, "columns", "split", "column_names")
        # The same keys as in the yamls of conf/datamodule: a column named after a modality is found without being set.
        usual = (*modality_names(), "inputs", "target", "targets") if folder is None else (folder, "target")
        boxes = ("boxes",) if folder in (None, "vision") else ()
        self.columns = dict.fromkeys((*usual, *boxes, "id", "split", "group")) | named
        self.folder = folder
        self.quoting = quoting
        self.column_names = column_names
        self.delimiter = delimiter
        self.encoding = encoding
        self.media_root = media_root

    def read(self) -> Table:
        parts = []
        for source in self.sources:
            cells, columns, places = self.picture_rows(source)
            parts.append(read_part(cells, Path(source.path), columns, self, places=places))
        return make_table(parts, self.sources, self)

    def picture_rows(self, source: Source) -> PictureRows:
        """Read the cells of one source, with a row per picture if the source has a row per box.

        Args:
            source: The source.

        Returns:
            The cells, the roles of their columns, and the places of the rows in the source.

        Raises:
            ValueError: If the source can't be read, or if it is not clear which columns state the boxes.
        """
        root = None if self.media_root is None else Path(self.media_root)
        cells, columns = self.cells(source), self.columns_of(source)
        return group_boxes(cells, columns, Path(source.path), root, self.readers, self.trained)

    def cells(self, source: Source) -> Cells:
        """Read the cells of one source: a file, a folder or a table in memory.

        Args:
            source: The source.

        Returns:
            Column name to cells.

        Raises:
            ValueError: If both the source and a column state the split.
        """
        names = self.column_names if source.column_names is None else source.column_names
        form = TableFormat(self.quoting, names, self.delimiter, self.encoding)
        if source.table is not None:
            cells = read_table(source.table)
        elif self.folder is None:
            cells = read_cells(Path(source.path), form)
        else:
            unlabelled = not self.draw_split or not self.readers
            boxes = any(codec.kind == "boxes" for codec in self.readers.values())
            cells = read_any(Path(source.path), self.folder, form, flat=unlabelled, boxes=boxes)
        if source.split is not None:
            if "split" in cells:
                raise ValueError(f"datamodule.path: {source.path} has a column 'split' already; leave out its split")
            cells["split"] = [source.split] * len(next(iter(cells.values())))
        return cells

    def columns_of(self, source: Source) -> Mapping[str, Any]:
        """Return the roles of the columns of one source.

        Args:
            source: The source.

        Raises:
            ValueError: If the source has `columns` of its own with an unknown role.
        """
        own = {} if source.split is None else {"split": "split"}
        if source.columns is None:
            return {**self.columns, **own}
        given = column_map(source.columns, "columns", f" of {source.path}")
        return dict.fromkeys(self.columns) | given | own


def input_roles(inputs: Mapping[str, Any], columns: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the `inputs` mapping of the constructor into roles, in the form of `columns`.

    Args:
        inputs: Input name to its column, or to {"column": ..., "modality": ...}.
        columns: Roles that are set already.

    Returns:
        The roles of these inputs.

    Raises:
        ValueError: If the modality of an input is not stated and is not its name.
    """
    roles: dict[str, Any] = {}
    full = dict(columns.get("inputs") or {})
    for name, column in inputs.items():
        if isinstance(column, Mapping) and "modality" in column:
            full[name] = column
        elif name in modality_names():
            roles[name] = column
        else:
            raise ValueError(
                f"inputs: got {name!r}: {column!r}, which is called as no modality; wanted "
                f"{{{name!r}: {{'column': ..., 'modality': ...}}}} with one of {', '.join(modality_names())}"
            )
    return roles | ({"inputs": full} if full else {})


def column_map(columns: Mapping[str, Any], key: str, of: str = "") -> dict[str, Any]:
    """Check the roles of columns and the types of their values.

    Args:
        columns: Role to column, as in conf/datamodule/manifest.yaml.
        key: The config key, for error messages.
        of: Suffix of the key in error messages, if a file has columns of its own.

    Returns:
        The roles. A list of `targets` is replaced by a mapping in which each target has the name of its column.

    Raises:
        ValueError: If a role is unknown, or if a value has the wrong type; the message names the role.
    """
    if not isinstance(columns, Mapping):
        raise ValueError(f"{key}{of}: got {columns!r}, wanted a mapping, such as {{text: words, target: label}}")
    found, roles = dict(columns), (*modality_names(), *ROLES)
    for role, value in columns.items():
        if role not in roles:
            raise ValueError(
                f"{key}.{role}{of}: nothing reads it, wanted some of {listing(list(roles))}, inputs and targets of "
                f"other names under inputs and targets{near(str(role), roles)}"
            )
        if role == "targets" and isinstance(value, Sequence) and not isinstance(value, str):
            if not all(isinstance(column, str) for column in value):
                raise ValueError(f"{key}.targets{of}: got {list(value)}, wanted columns, or {{name: column}}")
            found["targets"] = {column: column for column in value}
        elif role in ("inputs", "targets") and value is not None and not isinstance(value, Mapping):
            such = "{label: column}" if role == "targets" else "{premise: {column: s1, modality: text}}"
            raise ValueError(f"{key}.{role}{of}: got {value!r}, wanted a mapping, such as {such}")
    return found


Manifest = ManifestDataModule  # the name in notebooks: mm.Manifest("tweets.csv", inputs={...}, targets={...})
