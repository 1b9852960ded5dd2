"""Decoded predictions of a test, row by row: in memory if they are small, else in one file per process."""

import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from mm.arrow import common_type, convert_type, to_arrow
from mm.files import AT_WORK, unused

# Maximum number of values (numbers, or pieces of 16 characters) held as Python objects, about 30 MB. As many are
# written to the file at a time, and twice as many are read at a time.
CELLS = 1_000_000

Name = tuple[str, ...]  # head and key, such as ("colour", "prediction"), or ("colour", "probability", "red")


@dataclass
class AnswerChunk:
    """Some rows in a file, as a stream in Arrow's IPC format from offset `begin` to `end`."""

    rows: np.ndarray  # (N,) int64
    path: Path
    begin: int
    end: int


@dataclass
class Written:
    """Facts about the rows that are in files.

    Attributes:
        chunks: The chunks of rows.
        first: Name of each column to the first row that has it, and its position in that row, which give the column
            order.
        types: Name of each column to all Arrow types that it has in a chunk.
        cells: Size of all rows, in the unit of `CELLS`.
        error: The error with which writing has failed, or None.
    """

    chunks: list[AnswerChunk] = field(default_factory=list)
    first: dict[Name, tuple[int, int]] = field(default_factory=dict)
    types: dict[Name, list[Any]] = field(default_factory=dict)
    cells: int = 0
    error: OSError | None = None


class Answers:
    """The decoded predictions of a model's heads, as columns.

    Each process adds the rows that it has tested, and writes them to its own file when they become large. The other
    processes hand their files over to rank 0, which reads all rows in any order, block by block. The file is removed
    with this object, or when the process ends. If the file can't be written, for example on a full disk, the test
    continues for the sake of its metrics, and the error is raised when the rows are read.

    Args:
        folder: Folder for the file; with several processes it has to be shared by all of them.
        limit: Maximum size that is held in memory, in the unit of `CELLS`.
    """

    def __init__(self, folder: Path, limit: int = CELLS):
        self.folder = folder
        self.limit = limit
        self.written = Written()
        self.path: Path | None = None
        self.removed: Any = None  # finalizer that removes the file
        self.held: list[int] = []  # indices of the rows in memory
        self.columns: dict[Name, list[Any]] = {}  # their cells; trailing None may be missing
        self.size = 0

    def add(self, row: int, answers: Mapping[str, Mapping[str, Any]]) -> None:
        """Add the predictions of a row.

        Args:
            row: Index of the row.
            answers: Head name to the result of its `decode` for the row.
        """
        count, first = len(self.held), self.written.first
        if self.written.error is not None:
            return
        self.held.append(row)
        for place, (name, value) in enumerate(flatten_answers(answers)):
            column = self.columns.setdefault(name, [])
            if len(column) < count:
                column.extend([None] * (count - len(column)))
            column.append(value)
            self.size += size_of(value)
            if name not in first or row < first[name][0]:
                first[name] = row, place
        if self.size >= self.limit:
            self.write()

    def __iter__(self) -> Iterator[int]:
        """Iterate over the indices of all rows, in the order in which they were added."""
        for chunk in self.written.chunks:
            yield from chunk.rows.tolist()
        yield from self.held

    def write(self) -> None:
        """Move the rows in memory to the file."""
        import pyarrow

        if not self.held:
            return
        count = len(self.held)
        arrays = {name: to_arrow(x + [None] * (count - len(x))) for name, x in self.columns.items()}
        for name, array in arrays.items():
            types = self.written.types.setdefault(name, [])
            if array.type not in types:
                types.append(array.type)
        batch = pyarrow.record_batch(list(arrays.values()), names=[column_name(name) for name in arrays])
        stream = BytesIO()
        with pyarrow.ipc.new_stream(stream, batch.schema) as writer:
            writer.write_batch(batch)
        if self.path is None:
            self.path = unused(self.folder.resolve() / "answers")
            AT_WORK.add(self.path.name)
            self.removed = weakref.finalize(self, remove, self.path, os.getpid())
        try:
            with self.path.open("ab") as file:
                begin = file.tell()
                file.write(stream.getbuffer())
        except OSError as error:
            self.written.error = error
        else:
            end = begin + len(stream.getbuffer())
            self.written.chunks.append(AnswerChunk(np.array(self.held, dtype=np.int64), self.path, begin, end))
        self.written.cells += self.size
        self.held, self.columns, self.size = [], {}, 0

    def hand_over(self) -> Written:
        """Return the facts with which another process can read the rows and remove the file, and empty this object."""
        self.write()
        given, self.written = self.written, Written()
        if self.path is not None:
            self.removed.detach()
            self.path = None
        return given

    def take(self, other: Written) -> None:
        """Take over the rows of another process, which its `hand_over` returned."""
        for path in {chunk.path for chunk in other.chunks}:
            AT_WORK.add(path.name)
            weakref.finalize(self, remove, path, os.getpid())
        self.written.chunks += other.chunks
        self.written.cells += other.cells
        self.written.error = self.written.error or other.error
        for name, place in other.first.items():
            self.written.first[name] = min(place, self.written.first.get(name, place))
        for name, types in other.types.items():
            own = self.written.types.setdefault(name, [])
            own += [one for one in types if one not in own]

    def tables(self, rows: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Read rows block by block.

        Args:
            rows: Indices of the rows, in any order; rows without predictions are allowed.

        Yields:
            Number of rows of each block, and their predictions as a pyarrow.Table. Every block has all columns, in the
            order in which the lowest rows have them, and null in rows without a value.

        Raises:
            OSError: If a process could not write its file.
            ValueError: If the file of another process does not exist.
        """
        self.write()
        if self.written.error is not None:
            raise self.written.error
        order = sorted(self.written.first, key=self.written.first.__getitem__)
        types = {column_name(name): common_type(self.written.types[name]) for name in order}
        number = [np.full(len(chunk.rows), i) for i, chunk in enumerate(self.written.chunks)]
        place = [np.arange(len(chunk.rows)) for chunk in self.written.chunks]
        nothing = np.zeros(0, dtype=np.int64)
        known, number, place = (
            np.concatenate([nothing, *x]) for x in ([c.rows for c in self.written.chunks], number, place)
        )
        sort = np.argsort(known, kind="stable")
        known, number, place = known[sort], number[sort], place[sort]
        most = max(1, 2 * self.limit * len(known) // self.written.cells) if len(known) else max(1, len(rows))
        for begin in range(0, max(1, len(rows)), most):  # without rows there is one empty block with all columns
            wanted = np.asarray(rows[begin : begin + most], dtype=np.int64)
            at = np.searchsorted(known, wanted, side="right") - 1
            found = np.flatnonzero((at >= 0) & (known[at.clip(0)] == wanted)) if len(known) else nothing
            yield len(wanted), self.block(types, len(wanted), found, number[at[found]], place[at[found]])

    def block(self, types: Mapping[str, Any], count: int, present: np.ndarray, number: np.ndarray, place: Any) -> Any:
        """Read one block of rows as a pyarrow.Table.

        Args:
            types: Column name to Arrow type.
            count: Number of rows of the block.
            present: Indices in the block of the rows with predictions.
            number: Index of the chunk of each such row.
            place: Index in its chunk of each such row.
        """
        import pyarrow

        schema = pyarrow.schema(list(types.items()))
        parts = [schema.empty_table()]
        index = np.full(count, -1)
        for chunk in np.unique(number).tolist():
            own = number == chunk
            index[present[own]] = np.arange(own.sum()) + sum(len(part) for part in parts)
            table = read(self.written.chunks[chunk]).take(pyarrow.array(place[own]))
            there = set(table.column_names)
            columns = [
                convert_type(table[name].combine_chunks(), kind) if name in there else pyarrow.nulls(len(table), kind)
                for name, kind in types.items()
            ]
            parts.append(pyarrow.table(columns, schema=schema))
        whole = pyarrow.concat_tables(parts)
        if not types:
            return pyarrow.table({})
        return whole.take(pyarrow.array(index, mask=index < 0))


def remove(path: Path, process: int) -> None:
    """Remove a file. A forked process, such as a data loader's worker, removes nothing."""
    if os.getpid() == process:
        AT_WORK.discard(path.name)
        path.unlink(missing_ok=True)


def flatten_answers(answers: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[Name, Any]]:
    """Yield each value of nested predictions with its name, such as ("colour", "probability", "red")."""
    for head, answer in answers.items():
        for key, value in answer.items():
            if isinstance(value, Mapping):
                for inner, x in value.items():
                    yield (head, key, inner), x
            else:
                yield (head, key), value


def column_name(name: Name) -> str:
    """Return the name of a column in the predictions file."""
    return "/".join(map(str, name))


def size_of(value: Any) -> int:
    """Return the size of a cell, in the unit of `CELLS`."""
    if isinstance(value, str):
        return 1 + len(value) // 16
    if isinstance(value, Mapping):
        return sum(size_of(x) for x in value.values()) + 1
    if isinstance(value, list | tuple):
        return sum(map(size_of, value)) + 1
    return 1


def read(chunk: AnswerChunk) -> Any:
    """Read the rows of a chunk as a memory-mapped pyarrow.Table.

    Raises:
        ValueError: If the file does not exist.
    """
    import pyarrow

    if not chunk.path.is_file():
        raise ValueError(
            f"{chunk.path}: no such file; every process writes its predictions into the run folder, which has to lie "
            "in a file system that all machines share"
        )
    with pyarrow.memory_map(str(chunk.path)) as file:
        file.seek(chunk.begin)
        data = file.read_buffer(chunk.end - chunk.begin)
    return pyarrow.ipc.open_stream(data).read_all()
