"""Files and folders -> columns of cells."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datamodules.table import SPLITS

Cells = dict[str, list[Any]]  # column name -> its cells, by row

SUFFIXES = {
    "text": (".txt", ".md"),
    "vision": (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    "audio": (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif"),
}


def read_cells(path: Path, quotes: bool | None = None) -> Cells:
    """CSV, TSV, JSONL or Parquet -> columns. Errors: ValueError naming file and line."""
    readers = {".csv": ",", ".tsv": "\t", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet", ".pq": "parquet"}
    if not path.is_file():
        raise ValueError(f"datamodule.path: no file {path}; got as current folder {Path.cwd()}")
    how = readers.get(path.suffix.lower())
    if how is None:
        raise ValueError(f"datamodule.path: got {path.name}, wanted a file ending in {', '.join(readers)}")
    if how == "parquet":
        return read_parquet(path)
    cells = read_jsonl(path) if how == "json" else read_delimited(path, how, how == "," if quotes is None else quotes)
    if not cells or not next(iter(cells.values())):
        raise ValueError(f"{path}: has no rows")
    return cells


def read_delimited(path: Path, delimiter: str, quotes: bool) -> Cells:
    """The first line names the columns. Bytes that are no UTF-8 are kept as surrogates: reading the row then names it."""
    csv.field_size_limit(2**31 - 1)  # texts may be longer than the module's 131,072 characters
    quoting = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=quotes)
        try:
            header = next(reader, [])
            if len(set(header)) < len(header):
                twice = next(name for name in header if header.count(name) > 1)
                raise ValueError(f"{path}: line 1: the column '{twice}' is there twice; rename one")
            rows = []
            for cells in reader:
                if cells and len(cells) != len(header):
                    raise ValueError(
                        f"{path}: line {reader.line_num}: {len(cells)} fields, wanted {len(header)} as in the first line; "
                        "quote a field that holds the delimiter"
                    )
                if cells:
                    rows.append(cells)
        except csv.Error as error:
            raise ValueError(f"{path}: line {reader.line_num}: {error}") from None
    return dict(zip(header, map(list, zip(*rows, strict=True)), strict=True)) if rows else {}


def read_jsonl(path: Path) -> Cells:
    """One JSON object a line; a key that a line lacks is an empty cell."""
    rows = []
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}: line {number}: is no JSON ({error}); wanted one object a line") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}: line {number}: got {type(row).__name__}, wanted one object a line")
            rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


def read_parquet(path: Path) -> Cells:
    """Errors: ValueError where the file is none."""
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pydict()
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path}: can't be read as Parquet: {error}") from None


def read_folder(path: Path, modality: str) -> Cells:
    """A folder per class, perhaps below a folder per split -> columns named by modality, target, id and split."""
    path = path.resolve()
    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES[modality])
    if not files:
        raise ValueError(f"datamodule.path: no file below {path} ends in {', '.join(SUFFIXES[modality])}")
    parts = [file.relative_to(path).parts for file in files]
    splits = all(p[0] in (*SPLITS, "valid", "validation", "dev") and len(p) > 2 for p in parts)
    for p in parts:
        if len(p) < 2:
            raise ValueError(f"datamodule.path: {path / p[0]} lies in no class folder, wanted {path}/CLASS/{p[0]}")
    cells: Cells = {
        modality: [f.read_text("utf-8", "surrogateescape") for f in files] if modality == "text" else [*map(str, files)],
        "target": [p[1] if splits else p[0] for p in parts],
        "id": ["/".join(p) for p in parts],
    }
    return cells | ({"split": [p[0] for p in parts]} if splits else {})


def read_any(path: Path, modality: str, quotes: bool | None = None) -> Cells:
    """A folder of files, or a table file."""
    return read_folder(path, modality) if path.is_dir() else read_cells(path, quotes)


def nearest(name: str, names: Sequence[str]) -> str:
    """What was perhaps meant, for the end of a message."""
    from difflib import get_close_matches

    close = get_close_matches(name, names, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
