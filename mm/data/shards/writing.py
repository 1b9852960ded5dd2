"""Writing of shards: rows of a table file into tar files in WebDataset's format, with an index of their positions."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet

from mm.cells import text_of, undecodable
from mm.data.column_names import target_columns
from mm.data.columns import Part, read_part
from mm.data.fingerprint import column as column_digests
from mm.data.module import DataModule
from mm.data.shards.reading import FORMAT, INDEX, OWN, About, Shard
from mm.data.table import SPLITS, Cells, Fault, Table
from mm.files import whole
from mm.modalities import get_modality

BLOCK = 512  # bytes; members of a tar file begin at multiples of it


class Packed(NamedTuple):
    """One row, read and encoded as bytes."""

    row: int
    inputs: dict[str, tuple[bytes, float]]  # name of each present input to its bytes and, of a sound, its seconds
    cells: dict[str, Any]  # of targets, id, split and group
    faults: list[Fault]


def write_rows(
    module: DataModule,
    source: Path,
    cells: Cells,
    columns: Mapping[str, Any],
    out: Path,
    size: int,
    seed: int,
    places: Sequence[str] | None = None,
) -> tuple[About, Table]:
    """Write the rows of a file into shards in a folder, which appears only when it is complete.

    Every image and sound is decoded once, as a check; its bytes are written unchanged. Rows that belong to no split are
    left out.

    Args:
        module: Data module of the rows.
        source: The file.
        cells: Column name to cells of the file.
        columns: Role to column, as in conf/datamodule/manifest.yaml.
        out: A new or empty folder for the shards.
        size: Approximate size of a shard in bytes.
        seed: Random seed of the order in which training rows are written.
        places: Where each row is in the file, as in `Table`.

    Returns:
        The header of the shards' index, and the table of the file's rows.

    Raises:
        ValueError: If an input has a modality that shards do not support, or if a row can't be read and `on_error` is
            "raise".
    """
    module.known |= dict.fromkeys(target_columns(cells, columns))  # keep all targets, whatever their values
    part = read_part(cells, source, columns, module, places=places)
    for name, data in part.table.spec.inputs.items():
        if not get_modality(data.modality).in_shards:
            raise ValueError(
                f"the input '{name}' is {data.modality}, which can't be written to shards; leave it out with "
                f"datamodule.inputs, or train from the table itself with datamodule=manifest"
            )
    module.table = part.table  # for the row names in messages
    module.settle(part.table)
    if part.roles["id"] is None and "id" not in cells:  # rows keep their names even if others are left out
        part = part._replace(roles=part.roles | {"id": "id"})
        cells["id"] = list(part.table.ids)
    with whole(out) as folder:
        folder.mkdir(parents=True)
        return write_part(part, cells, columns, module, folder, size, seed), part.table


def write_part(
    part: Part, cells: Cells, columns: Mapping[str, Any], module: DataModule, folder: Path, size: int, seed: int
) -> About:
    """Write the shards and then the index, without which a folder is incomplete.

    Args:
        part: The rows of the file.
        cells: Column name to cells of the file.
        columns: Role to column.
        module: Data module of the rows, for its settings and to record faults.
        folder: Folder for the shards.
        size: Approximate size of a shard in bytes.
        seed: Random seed of the order in which training rows are written.

    Returns:
        The header of the index.

    Raises:
        ValueError: If no row has one of the inputs, or if a row can't be read and `on_error` is "raise".
    """
    table, inputs = part.table, part.table.spec.inputs
    others = [column for column, _ in part.targets.values()] + [c for c in part.roles.values() if c is not None]
    others = list(dict.fromkeys(others))
    places: dict[str, np.ndarray] = {"shard": np.full(len(table.ids), -1, dtype=np.int32)}
    for name, data in inputs.items():
        places |= {f"{what}.{name}": np.full(len(table.ids), -1, dtype=np.int64) for what in ("offset", "size")}
        if get_modality(data.modality).unit == "seconds":
            places[f"seconds.{name}"] = np.zeros(len(table.ids), dtype=np.float32)
        if not get_modality(data.modality).in_files:  # the same digests as in a fingerprint
            places[f"digest.{name}"] = column_digests(table.inputs[name]).view(np.int64)
    read = partial(pack, table, {column: cells[column] for column in others})
    with Tar(folder, size) as tar:
        for packed in ahead(read, order(table, part.roles["split"] is not None, seed), max(1, module.num_workers)):
            for fault in packed.faults:
                module.record(fault, table)
            if packed.faults and module.on_error == "drop":
                continue
            row = packed.row
            places["shard"][row] = tar.begin()
            tar.add(f"{row:09d}.json", json.dumps(packed.cells, default=str).encode())
            for column, cell in packed.cells.items():
                cells[column][row] = cell
            for name, (data, seconds) in packed.inputs.items():
                suffix = Path(table.inputs[name][row]).suffix.lower() if f"digest.{name}" not in places else ".txt"
                places[f"offset.{name}"][row] = tar.add(f"{row:09d}.{name}{suffix}", data)
                places[f"size.{name}"][row] = len(data)
                if f"seconds.{name}" in places:
                    places[f"seconds.{name}"][row] = seconds
        shards = tar.close()
    kept = np.flatnonzero(places["shard"] >= 0)
    for name in inputs:
        if not (places[f"size.{name}"][kept] >= 0).any():
            raise ValueError(f"{table.source}: no row has the input '{name}'; leave it out with datamodule.inputs")
    about = About(
        format=FORMAT,
        source=table.source,
        columns={key: value for key, value in columns.items() if value is not None},
        inputs={name: {"column": table.columns[name]} | asdict(data) for name, data in inputs.items()},
        shards=[list(shard) for shard in shards],
        digest=tar.digest.hexdigest(),
    )
    media = [table.columns[name] for name, data in inputs.items() if get_modality(data.modality).in_files]
    told = {column: [cells[column][row] for row in kept.tolist()] for column in dict.fromkeys([*others, *media])}
    write_index(folder / INDEX, about, told, {name: x[kept] for name, x in places.items()})
    return about


def order(table: Table, splits: bool, seed: int) -> list[int]:
    """Return the indices of the rows in the order of writing: split by split, with shuffled training rows.

    If the data states no splits, all rows are shuffled together.

    Args:
        table: The rows.
        splits: Whether the data states the splits.
        seed: Random seed.
    """
    rng = np.random.default_rng(seed)
    if not splits:
        return rng.permutation(np.flatnonzero(table.split != "")).tolist()
    rows = {name: np.flatnonzero(table.split == name) for name in SPLITS}
    rows["train"] = rng.permutation(rows["train"])
    return np.concatenate([*rows.values()]).tolist()


def ahead(read: Callable[[int], Packed], rows: Sequence[int], threads: int) -> Iterator[Packed]:
    """Yield rows that several threads read in advance, because decoding releases Python's global lock.

    Args:
        read: Function that reads the row with an index.
        rows: Indices of the rows.
        threads: Number of threads; at most 64 rows per thread are in memory.
    """
    step = 32 * threads
    with ThreadPoolExecutor(threads) as pool:
        coming = pool.map(read, rows[:step])
        for begin in range(step, len(rows) + step, step):
            now, coming = list(coming), pool.map(read, rows[begin : begin + step])
            yield from now


def pack(table: Table, cells: Cells, row: int) -> Packed:
    """Read one row and record the inputs and cells that can't be read as faults.

    Args:
        table: The table.
        cells: Column name to cells of the targets, the id, the split and the group.
        row: Index of the row.
    """
    inputs: dict[str, tuple[bytes, float]] = {}
    faults = []
    told = {column: values[row] for column, values in cells.items()}
    for column, cell in told.items():
        if undecodable(text_of(cell)):
            faults.append(Fault(row, column, "the cell is not valid UTF-8; save the file as UTF-8"))
            told[column] = None
    for name, data in table.spec.inputs.items():
        raw = table.inputs[name][row]
        if raw is None or (isinstance(raw, str) and not raw):
            continue
        try:
            inputs[name] = get_modality(data.modality).to_bytes(raw)
        except ValueError as error:
            faults.append(Fault(row, table.columns[name], str(error)))
    return Packed(row, inputs, told, faults)


class Tar:
    """Writes members into a sequence of tar files of about `size` bytes each.

    Args:
        folder: Folder of the tar files.
        size: Approximate size of a tar file in bytes.
    """

    def __init__(self, folder: Path, size: int):
        self.folder = folder
        self.size = size
        self.shards: list[Shard] = []
        self.digest = hashlib.blake2b(digest_size=16)
        self.tar: tarfile.TarFile | None = None
        self.rows = 0
        self.opened = ExitStack()

    def __enter__(self) -> "Tar":
        return self

    def __exit__(self, *error: object) -> None:
        self.opened.close()

    def begin(self) -> int:
        """Begin a row, in a new shard if the current one is full, and return the index of its shard."""
        if self.tar is not None and self.tar.offset >= self.size:
            self.end()
        if self.tar is None:
            tar = tarfile.open(self.folder / self.name, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            self.tar = self.opened.enter_context(tar)
        self.rows += 1
        return len(self.shards)

    @property
    def name(self) -> str:
        """Return the file name of the current shard."""
        return f"{len(self.shards):06d}.tar"

    def add(self, name: str, data: bytes) -> int:
        """Add a member to the current row and return the offset of its bytes in the shard.

        Args:
            name: Name of the member.
            data: Bytes of the member.
        """
        assert self.tar is not None
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self.tar.addfile(member, io.BytesIO(data))
        self.digest.update(name.encode() + data)
        return self.tar.offset - -(-len(data) // BLOCK) * BLOCK

    def end(self) -> None:
        """Finish the current shard and write it to the disk."""
        self.opened.close()
        path = self.folder / self.name
        with path.open("rb") as file:
            os.fsync(file.fileno())
        self.shards.append(Shard(self.name, path.stat().st_size, self.rows))
        self.tar, self.rows = None, 0

    def close(self) -> list[Shard]:
        """Finish the last shard and return all shards.

        Raises:
            ValueError: If no row was written.
        """
        if self.tar is None:
            raise ValueError("no row is left to write")
        self.end()
        return self.shards


def write_index(path: Path, about: About, cells: Cells, places: Mapping[str, np.ndarray]) -> None:
    """Write the index: the columns of the data unchanged, and the positions of the rows in columns named mm.*.

    Args:
        path: Path of the index file.
        about: The header.
        cells: Cells of the written rows by column.
        places: Shard, offset and size of each row's inputs, by name.
    """
    columns = {name: column(values) for name, values in cells.items()}
    columns |= {f"{OWN}{name}": pyarrow.array(values) for name, values in places.items()}
    table = pyarrow.table(columns).replace_schema_metadata({"mm": json.dumps(about._asdict())})
    with path.open("wb") as file:
        pyarrow.parquet.write_table(table, file)
        file.flush()
        os.fsync(file.fileno())


def column(values: Sequence[Any]) -> pyarrow.Array:
    """Convert cells into an Arrow array; cells of several types become texts.

    Raises:
        ValueError: If some cells are lists and others are not.
    """
    try:
        return pyarrow.array(values)
    except pyarrow.ArrowException:
        odd = next((value for value in values if isinstance(value, list | dict)), None)
        if odd is not None:
            raise ValueError(
                f"a column has {odd!r:.60} beside cells of another kind, which shards can't keep apart; make all of "
                "its cells lists of one kind"
            ) from None
        return pyarrow.array([text_of(value) for value in values])
