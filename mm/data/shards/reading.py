"""Reading of shards: their index, and the bytes of their rows from a disk or an object store."""

import json
import mmap
import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet

from mm.annotations import check_fields, fits
from mm.cells import text_of
from mm.data.fingerprint import column, file_key
from mm.data.readers.parquet import unpack_table
from mm.data.table import Cells
from mm.files import whole
from mm.fingerprints import Identified
from mm.modalities import get_modality
from mm.transforms.stored import Stored, StoredError
from mm.types import InputData

INDEX = "index.parquet"
OWN = "mm."  # prefix of the columns of the index that are not columns of the data
FORMAT = 1


class Shard(NamedTuple):
    """Index entry of one shard: its file name, size in bytes and number of rows."""

    name: str
    bytes: int
    rows: int


class About(NamedTuple):
    """Header of the index of a folder of shards, with the facts from which a model can be built."""

    format: int
    source: str  # the file that was sharded
    columns: dict[str, Any]  # role to column, as in datamodule.columns
    inputs: dict[str, dict[str, Any]]  # input name to its column and the fields of InputData
    shards: list[list[Any]]  # the fields of each Shard
    digest: str  # checksum of the content of all shards


class Column(Identified, Sequence[Any]):
    """The values of one input, by row: a text, a Stored image or sound, or None if the row lacks the input.

    Args:
        store: The store that reads the shards.
        name: Name of the input.
        places: Shard, offset and size of each row and input in the shards, by name, (N,) each.
        names: File names of the media, by row; None: the input is a text.
        identity: Fingerprint of the input, from the digest of the shards.
    """

    def __init__(self, store: "Store", name: str, places: dict[str, np.ndarray], names: Any, identity: str):
        self.store = store
        self.shard = places["shard"]
        self.offset, self.size = places[f"offset.{name}"], places[f"size.{name}"]
        self.seconds = places.get(f"seconds.{name}")
        self.digest = places.get(f"digest.{name}")  # of texts; None: the index was written by an older version of mm
        self.names = names
        self.identity = identity

    def __len__(self) -> int:
        return len(self.shard)

    def digests(self) -> np.ndarray:
        """Return a digest for each row, (N,) uint64, as `fingerprint.Digested` does; 0 if the row lacks the input.

        They equal those of the same rows in a table file, except for texts of an index by an older version of mm.
        """
        if self.names is not None:
            found = column([file_key(text_of(name), size) for name, size in zip(self.names, self.size.tolist())])
        elif self.digest is not None:
            found = self.digest.view(np.uint64)
        else:
            found = column([f"{self.identity} {row}" for row in range(len(self))])
        return np.where(self.size < 0, np.uint64(0), found)

    def __getitem__(self, row: Any) -> Any:
        if self.size[row] < 0:
            return None
        read = partial(self.store.read, int(self.shard[row]), int(self.offset[row]), int(self.size[row]))
        if self.names is None:
            return read().decode()
        return Stored(self.names[row], read, 0.0 if self.seconds is None else float(self.seconds[row]))


class Store:
    """Reads the shards of one folder and keeps the last `keep` of them open.

    Shards behind a URL are downloaded completely into the cache.

    Args:
        path: Folder or URL of the shards.
        shards: Index entries of the shards.
        cache: Folder for downloaded shards.
        keep: Maximum number of shards that are open and, of downloaded ones, that are cached.

    Raises:
        StoredError: If a shard of a local folder is missing or has the wrong size.
    """

    def __init__(self, path: str, shards: Sequence[Shard], cache: Path, keep: int):
        self.path = path.rstrip("/")
        self.shards = shards
        self.cache = cache
        self.keep = keep
        self.open: OrderedDict[int, mmap.mmap] = OrderedDict()
        self.fetched = 0  # number of shards that this process has downloaded
        for shard in () if is_url(path) else shards:
            check_size(Path(path) / shard.name, shard)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"open": OrderedDict()}  # every worker process opens the shards itself

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """Return a range of bytes of a shard.

        Args:
            shard: Index of the shard.
            offset: Index of the first byte.
            size: Number of bytes.

        Raises:
            StoredError: If the shard can't be read.
        """
        if shard not in self.open:
            self.open[shard] = self.map(self.shards[shard])
            if len(self.open) > self.keep:
                self.open.popitem(last=False)
        self.open.move_to_end(shard)
        return self.open[shard][offset : offset + size]

    def map(self, shard: Shard) -> mmap.mmap:
        """Memory-map a shard, after downloading it if necessary.

        Raises:
            StoredError: If the shard can't be read.
        """
        try:
            path = self.fetch(shard) if is_url(self.path) else Path(self.path) / shard.name
            with check_size(path, shard).open("rb") as file:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise StoredError(f"can't read {self.path}/{shard.name}: {error}") from None

    def fetch(self, shard: Shard) -> Path:
        """Return the path of a shard in the cache, after downloading it if necessary, and remove the oldest shards.

        A lock makes sure that several processes download a shard only once.
        """
        from filelock import FileLock

        self.cache.mkdir(parents=True, exist_ok=True)
        path = self.cache / shard.name
        with FileLock(f"{path}.lock"):
            if not path.exists():
                files, root = file_system(self.path)
                with whole(path) as part:
                    files.get_file(f"{root}/{shard.name}", str(part))
                    check_size(part, shard)
                self.fetched += 1
            os.utime(path)
        # A removed file that another process has mapped stays readable there.
        copies = sorted((age(copy), copy) for copy in self.cache.glob("*.tar"))
        for _, copy in copies[: -self.keep]:
            copy.unlink(missing_ok=True)
        return path


def age(path: Path) -> float:
    """Return the last access time of a cached shard in seconds, or 0 if another process has just removed it."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def check_size(path: Path, shard: Shard) -> Path:
    """Return the path of a shard file after checking its size.

    Args:
        path: Path of the file.
        shard: Index entry of the shard.

    Raises:
        StoredError: If the file is missing, or if its size differs from that in the index.
    """
    if not path.is_file():
        raise StoredError(f"no file {path}; the index names it: copy the folder again, or run mm shard again")
    if path.stat().st_size != shard.bytes:
        raise StoredError(
            f"{path} has {path.stat().st_size:,} bytes, wanted {shard.bytes:,}; copy it again, or run mm shard again"
        )
    return path


def is_url(path: str) -> bool:
    """Return whether a path is a URL, which fsspec reads."""
    return "://" in path


def file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it.

    Raises:
        ValueError: If the package for this kind of URL is missing, or if the URL is invalid.
    """
    from fsspec.core import url_to_fs  # created in each process, since connections do not survive a fork

    try:
        return url_to_fs(url)
    except ImportError as error:
        raise ValueError(f"datamodule.path: {url}: {error}, with pip install") from None
    except ValueError as error:
        raise ValueError(f"datamodule.path: {url}: {error}") from None


def read_index(path: str) -> tuple[Cells, About, dict[str, np.ndarray]]:
    """Read and check the index of a folder of shards.

    Args:
        path: Folder or URL of the shards.

    Returns:
        The cells of the rows by column; the header; and the shard, offset and size of each row's inputs, by name, (N,)
        each.

    Raises:
        ValueError: If the folder or its index is missing, or if the index is damaged or has another format version.
    """
    path = path.rstrip("/")
    if not is_url(path) and not Path(path).is_dir():
        raise ValueError(f"datamodule.path: {path}: no such folder (the current folder is {Path.cwd()})")
    files, root = file_system(path)
    if not files.exists(f"{root}/{INDEX}"):
        raise ValueError(
            f"datamodule.path: {path} holds no {INDEX}, wanted a whole folder as mm shard writes it: "
            "mm shard datamodule=manifest datamodule.path=rows.csv out=FOLDER"
        )
    try:
        table = pyarrow.parquet.read_table(BytesIO(files.cat_file(f"{root}/{INDEX}")))
        about = About(**json.loads(table.schema.metadata[b"mm"]))
    except (pyarrow.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}/{INDEX}: is no index of mm shard, or damaged: {error}") from None
    if about.format != FORMAT:
        raise ValueError(f"{path}/{INDEX}: is of format {about.format}, this mm reads {FORMAT}; run mm shard again")
    own = [name for name in table.column_names if name.startswith(OWN)]
    try:
        places = {name.removeprefix(OWN): table[name].to_numpy() for name in own}
        cells = unpack_table(table.drop_columns(own))
        check_index(about, cells, places)
    except (pyarrow.ArrowException, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}/{INDEX}: is damaged, or not of mm shard: {error}; run mm shard again") from None
    return cells, about, places


def check_index(about: About, cells: Cells, places: dict[str, np.ndarray]) -> None:
    """Check the content of an index, which may come from an untrusted source.

    Args:
        about: The header.
        cells: Cells of the rows by column.
        places: Shard, offset and size of each row's inputs, by name.

    Raises:
        ValueError: If a shard lies outside of its folder, if a row belongs to no shard, or if a value has the wrong
            type.
    """
    if not fits(about.inputs, dict[str, Any]) or not fits(about.shards, list[list]):
        raise ValueError("wanted a mapping of inputs and a list of shards; write the shards again with mm shard")
    for name, size, rows in about.shards:
        if not isinstance(name, str) or name in ("", ".", "..") or re.search(r"[/\\\0]", name):
            raise ValueError(f"got the shard {name!r:.80}, wanted a file of this folder")
        if not all(isinstance(number, int) and number >= 0 for number in (size, rows)):
            raise ValueError(f"shard {name}: got {size!r:.20} bytes and {rows!r:.20} rows")
    if not fits(about.columns, dict[str, Any]) or not isinstance(about.digest, str):
        raise ValueError(
            "wanted a mapping of columns and a digest that is a text; write the shards again with mm shard"
        )
    shard = places["shard"]
    if shard.dtype.kind not in "iu" or (len(shard) and not 0 <= shard.min() <= shard.max() < len(about.shards)):
        raise ValueError("a row is in no shard")
    for name, known in about.inputs.items():
        if not isinstance(known, dict) or not name.isidentifier():
            raise ValueError(f"got the input {name!r:.80}")
        data = {key: value for key, value in known.items() if key != "column"}
        check_fields(InputData, data, f"inputs.{name}")
        if get_modality(data["modality"]).in_files and known["column"] not in cells:
            raise ValueError(
                f"inputs.{name}: the shards have no column {known['column']!r:.80}; write them again with mm shard"
            )
        for key in (f"offset.{name}", f"size.{name}"):
            if places[key].dtype.kind not in "iu":
                raise ValueError(f"{key}: got {places[key].dtype}, wanted whole numbers")
