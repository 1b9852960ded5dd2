"""Shards that `mm shard` writes: rows of a table in tar files, on a disk or in an object store."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm.data.columns import Kept, Part, read_part
from mm.data.module import DataModule
from mm.data.shards.reading import About, Column, Shard, Store, read_index
from mm.data.shards.writing import write_rows
from mm.data.sources import Source, make_table, sources
from mm.data.table import Table
from mm.datamodules.manifest import ManifestDataModule
from mm.modalities import get_modality
from mm.reports import Report
from mm.reports import Table as ReportTable
from mm.types import InputData


class ShardsDataModule(DataModule):
    """Rows of one or several folders of shards that `mm shard` has written.

    Args:
        path: A folder or its URL, or a list of them; each is a path, or {path: ..., weight: ...}.
        cache: Folder for shards that are downloaded from a URL. It contains at most twice `shuffle_window` shards.
        **shared: Arguments of `DataModule`.

    Raises:
        ValueError: If a folder does not exist, or if a shard is incomplete.
    """

    def __init__(self, path: Any, cache: str = ".cache/shards", **shared: Any):
        super().__init__(**shared)
        self.sources = sources(path)
        self.cache = Path(cache)

    def read(self) -> Table:
        parts = [self.part(source) for source in self.sources]
        return make_table(parts, self.sources, self)

    def part(self, source: Source) -> Part:
        """Return the rows of one folder."""
        cells, about, places = read_index(source.path)
        self.columns = self.columns or about.columns
        shards = [Shard(*shard) for shard in about.shards]
        # The digest alone does not suffice: the same rows may be divided differently into shards.
        divided = hashlib.blake2b(f"{about.digest} {json.dumps(about.shards)}".encode(), digest_size=16).hexdigest()
        store = Store(source.path, shards, self.cache / divided, 2 * self.shuffle_window)
        inputs, raw, spec = {}, {}, {}
        for name, known in about.inputs.items():
            data: dict[str, Any] = {k: tuple(x) if isinstance(x, list) else x for k, x in known.items()}
            inputs[name] = data.pop("column"), data["modality"]
            spec[name] = InputData(**data)
            names = cells[known["column"]] if get_modality(data["modality"]).in_files else None
            raw[name] = Column(store, name, places, names, f"{about.digest} {name}")
        kept = Kept(inputs, raw, spec, places["shard"])
        return read_part(cells, Path(source.path.rstrip("/")), about.columns, self, kept)


@dataclass(frozen=True, repr=False)
class ShardReport(Report):
    """Result of `shard`: the written shards and their size.

    Attributes:
        folder: Folder of the shards.
        source: Name of the table.
        inputs: Names of the inputs.
        rows: Number of rows in the shards.
        total: Number of rows of the table, including those that belong to no split.
        shards: Number of shards.
        size: Total size of the shards in bytes.
    """

    folder: Path
    source: str
    inputs: tuple[str, ...]
    rows: int
    total: int
    shards: int
    size: int

    @property
    def metrics(self) -> dict[str, float]:  # type: ignore[override]
        """Return the numbers of `rows`, `shards` and `bytes`."""
        return {"rows": self.rows, "shards": self.shards, "bytes": self.size}

    def table(self) -> ReportTable:
        """Return a table with one row: the folder, and its numbers of rows, shards and megabytes."""
        row = (str(self.folder), self.rows, self.shards, self.size / 1e6)
        return ReportTable(("folder", "rows", "shards", "MB"), [row])


def shard(data: ManifestDataModule, folder: str | Path, *, shard_size_mb: float = 64, seed: int = 0) -> ShardReport:
    """Write the rows of a table file, and the media files that they name, into shards for `datamodule=shards`.

    Args:
        data: Data module of one file.
        folder: A new or empty folder for the shards.
        shard_size_mb: Approximate size of a shard in MB (1e6 bytes).
        seed: Random seed of the order in which training rows are written, so that similar neighbours are spread out.

    Returns:
        The report.

    Raises:
        ValueError: If the data has several files, if the folder is not empty, if a row can't be read, or if the size is
            not a number above 0.

    Example:
        >>> data = mm.Manifest("tweets.csv", targets=["mood"])  # doctest: +SKIP
        >>> mm.shard(data, "shards").table()  # doctest: +SKIP
    """
    if not isinstance(shard_size_mb, int | float) or isinstance(shard_size_mb, bool) or not shard_size_mb > 0:
        raise ValueError(f"shard_size_mb: got {shard_size_mb}, wanted MB above 0")
    out = Path(folder).absolute()
    about, table = write_shards(data, out, round(shard_size_mb * 1e6), seed)
    rows, total = sum(one[2] for one in about.shards), sum(one[1] for one in about.shards)
    return ShardReport(out, table.source, tuple(about.inputs), rows, len(table.ids), len(about.shards), total)


def write_shards(module: ManifestDataModule, out: Path, size: int, seed: int) -> tuple[About, Table]:
    """Write the rows of a data module's file into shards; see `write_rows`.

    Args:
        module: Data module of one file.
        out: A new or empty folder for the shards.
        size: Approximate size of a shard in bytes.
        seed: Random seed of the order in which training rows are written.

    Returns:
        The header of the shards' index, and the table of the file's rows.

    Raises:
        ValueError: If the module has several files, if `out` is not empty, or if a row can't be read.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ValueError(f"out: {out} is not empty; choose another folder, or delete it")
    if len(module.sources) > 1:
        raise ValueError("datamodule.path: mm shard takes one file; datamodule=shards then takes several folders")
    (source,) = module.sources
    cells, columns, places = module.picture_rows(source)
    return write_rows(module, Path(source.path), cells, columns, out, size, seed, places)
