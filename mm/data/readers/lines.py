"""Plain text files, a text a line -> columns of cells."""

import gzip
import zlib
from pathlib import Path

from mm.data.readers.encoding import check_unpacked
from mm.data.table import Cells


def read_lines(path: Path) -> list[str]:
    """Of a text file, .gz or not; bytes that are no UTF-8 are kept as surrogates: reading the row names it."""
    if not path.is_file():
        raise ValueError(f"datamodule.path: no file {path}")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"datamodule.path: {path} can't be unpacked: {error}") from None
    check_unpacked(data[:4096], path)
    text = data.decode("utf-8-sig", errors="surrogateescape")
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def read_texts(path: Path) -> Cells:
    """A text a line -> column text; empty lines are none."""
    return {"text": [line for line in read_lines(path) if line.strip()]}
