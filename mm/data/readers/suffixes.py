"""The suffixes of the files that are read as tables. A check of them needs no heavy import."""

from pathlib import Path

READERS = {".csv": ",", ".tsv": "\t", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet", ".pq": "parquet"}
READERS |= {".txt": "lines", ".gz": "lines", ".conll": "conll", ".bio": "conll", ".json": "whole"}
READERS |= {".yaml": "yolo", ".yml": "yolo"}


def check_table_file(path: Path) -> str:
    """Check that a path is a file with a suffix that is read.

    Args:
        path: The path.

    Returns:
        The kind of reader: a delimiter, or the name of a format.

    Raises:
        ValueError: If there is no such file, it is a folder, or its suffix is not known.
    """
    if not path.is_file():
        what = "is a folder, wanted a file" if path.is_dir() else f"no such file (the current folder is {Path.cwd()})"
        raise ValueError(f"datamodule.path: {path}: {what}")
    suffix = path.suffix.lower()
    if suffix == ".gz" and READERS.get(Path(path.stem).suffix.lower(), "lines") != "lines":
        raise ValueError(f"datamodule.path: {path.name}: only plain texts are read packed; unpack it")
    if suffix not in READERS:
        raise ValueError(f"datamodule.path: got {path.name}, wanted a file ending in {', '.join(READERS)}")
    return READERS[suffix]
