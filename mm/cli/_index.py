"""Embeddings in a Parquet file, a row each, and the FAISS index of each input's, kept beside it."""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor

from mm.extras import require
from mm.files import put, whole
from mm.model import MultimodalModel
from mm.transforms.stored import Stored
from mm.types import Batch, Towered
from mm.windows import directions

ALL = "embedding"  # the column of all inputs together; that of one, or of a tower of them, is NAME/embedding
GROUP = 4096  # rows of the file that are written, and read, at once
# More vectors than these are searched by a graph (HNSW, Malkov 2016), which may miss some; fewer one by one, which
# takes 5 ms for 100,000 of 128 numbers on one thread.
EXACT = 1_000_000
NEIGHBOURS, BREADTH = 32, 128  # of the graph: links of a vector, candidates of a search


class Vectors(NamedTuple):
    """Unit vectors (R, D) of the rows of a batch, and which rows have them (R,), by column: ALL, or NAME/embedding."""

    row: Tensor  # (R,)
    vectors: dict[str, Tensor]
    present: dict[str, Tensor]


class Hit(NamedTuple):
    """One item that was found."""

    id: str
    input: str
    similarity: float
    source: str | None


def sides(model: MultimodalModel) -> dict[str, Sequence[str]]:
    """What has a vector of its own, and of which inputs: towers of inputs, which is what was aligned, or each."""
    fusion = model.fusion
    return dict(fusion.inputs) if isinstance(fusion, Towered) else {name: [name] for name in model.inputs}


@torch.inference_mode()
def embed(model: MultimodalModel, batch: Batch) -> Vectors:
    """Of a finished batch. A row that became several windows has the direction of the mean of their unit vectors."""
    features = model.encode(batch.inputs, batch.masks)
    fused = model.fusion(features)
    parts = {f"{name}/{ALL}": f.pooled for name, f in features.items()}
    present = {f"{name}/{ALL}": f.mask.any(1) for name, f in features.items()}
    if isinstance(model.fusion, Towered):
        columns = [f"{name}/{ALL}" for name in sides(model)]
        parts = dict(zip(columns, fused.tokens.unbind(1), strict=True))
        present = dict(zip(columns, fused.mask.unbind(1), strict=True))
    parts[ALL] = fused.pooled
    present[ALL] = torch.stack(list(present.values())).any(0)
    units = {name: F.normalize(x.float(), dim=-1) * present[name].unsqueeze(1) for name, x in parts.items()}
    merged = {name: directions(unit, present[name], batch.row) for name, unit in units.items()}
    vectors = {name: unit for name, (_, unit, _) in merged.items()}
    return Vectors(merged[ALL][0], vectors, {name: there for name, (_, _, there) in merged.items()})


class Writer:
    """Embeddings -> a Parquet file that appears under its name when it is whole.

    sources: name of an input, or a tower -> of each input that its vectors are of, the raw values by row, of which a
    person reads something; about: of the model they are from.
    """

    def __init__(
        self,
        path: Path,
        width: int,
        ids: Sequence[str],
        sources: Mapping[str, Sequence[Sequence[Any]]],
        about: Mapping[str, str],
    ):
        self.path, self.ids, self.sources, self.width = path, ids, sources, width
        vector = pa.list_(pa.float32(), width)
        fields = [("id", pa.string()), ("row", pa.int64()), (ALL, vector)]
        for name in sources:
            fields += [(f"{name}/{ALL}", vector), (f"{name}/source", pa.string())]
        self.schema = pa.schema(fields, metadata=dict(about))
        self.part = path.with_name(f"{path.name}.part")
        self.file = pq.ParquetWriter(self.part, self.schema, use_dictionary=False)
        self.waiting: list[pa.RecordBatch] = []
        self.counts = dict.fromkeys([ALL, *(f"{name}/{ALL}" for name in sources)], 0)

    def add(self, embedded: Vectors) -> None:
        """A batch, without its fillers."""
        real = embedded.row >= 0
        rows = embedded.row[real].tolist()
        columns: dict[str, Any] = {"id": [self.ids[row] for row in rows], "row": rows}
        for name, x in embedded.vectors.items():
            absent = ~embedded.present[name][real].cpu().numpy()
            flat = pa.array(x[real].cpu().numpy().reshape(-1))
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, self.width, mask=pa.array(absent))
            self.counts[name] += int((~absent).sum())
        for name, raw in self.sources.items():
            columns[f"{name}/source"] = [source_of(*(values[row] for values in raw)) for row in rows]
        self.waiting.append(pa.RecordBatch.from_pydict(columns, self.schema))
        if sum(len(batch) for batch in self.waiting) >= GROUP:
            self.flush()

    def flush(self) -> None:
        """What is waiting becomes a group of rows."""
        if self.waiting:
            self.file.write_table(pa.Table.from_batches(self.waiting))
            self.waiting = []

    def close(self) -> None:
        self.flush()
        self.file.close()
        put(self.part, self.path)


def source_of(*raw: Any) -> str | None:
    """What a person reads of raw inputs: a text, a path, the place in a shard; of numbers nothing."""
    told = []
    for one in raw:
        told.append(str(one) if isinstance(one, str | Path | Stored) else "")
        if isinstance(one, Mapping):  # of a table
            told[-1] = json.dumps(one, ensure_ascii=False, default=str)
    # bytes that were no UTF-8 are lone surrogates
    return ", ".join(filter(None, told)).encode(errors="backslashreplace").decode() or None


def fingerprint(folder: Path) -> str:
    """Of a model directory's weights."""
    with (folder / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Embeddings:
    """A file of embeddings, opened. Errors: ValueError where it is none."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self.file = pq.ParquetFile(path)
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"index={path}: can't be read as Parquet ({error}); mm embed writes one") from None
        schema = self.file.schema_arrow
        about = schema.metadata or {}
        if ALL not in schema.names or b"model" not in about:
            raise ValueError(f"index={path}: was not written by mm embed")
        self.inputs = [name.removesuffix(f"/{ALL}") for name in schema.names if name.endswith(f"/{ALL}")]
        for name in self.inputs:  # names of files are made of them
            if not name.isidentifier():
                raise ValueError(f"index={path}: was not written by mm embed: it has an input {name!r:.80}")
        vectors = [schema.field(name).type for name in schema.names if name == ALL or name.endswith(f"/{ALL}")]
        fixed = all(pa.types.is_fixed_size_list(kind) and kind.value_type == pa.float32() for kind in vectors)
        if not fixed or len(set(vectors)) > 1 or not all(f"{name}/source" in schema.names for name in self.inputs):
            raise ValueError(f"index={path}: was not written by mm embed: its columns are others")
        self.model = about[b"model"].decode(errors="replace")
        self.width = schema.field(ALL).type.list_size
        self.many = self.file.metadata.num_rows > EXACT

    def groups(self, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Places in the file (N,) and vectors (N, D) of an input, where it is not absent."""
        first = 0
        for group in range(self.file.num_row_groups):
            column = self.file.read_row_group(group, [f"{name}/{ALL}"]).column(0).combine_chunks()
            present = np.flatnonzero(column.is_valid())
            vectors = column.drop_null().flatten().to_numpy().reshape(-1, self.width)
            yield first + present, vectors
            first += len(column)

    def items(self, name: str, places: Sequence[int]) -> list[tuple[str, str | None]]:
        """Ids and sources of some places; only the groups that hold them are read."""
        sizes = [self.file.metadata.row_group(group).num_rows for group in range(self.file.num_row_groups)]
        ends = np.cumsum(sizes)
        found = {}
        for group in {int(np.searchsorted(ends, place, side="right")) for place in places}:
            first = int(ends[group]) - sizes[group]
            ids, sources = (self.file.read_row_group(group, [column]).column(0) for column in ("id", f"{name}/source"))
            for place in places:
                if first <= place < ends[group]:
                    found[place] = (ids[place - first].as_py(), sources[place - first].as_py())
        return [found[place] for place in places]

    def index(self, name: str) -> Any:
        """Of an input's vectors, built on first use; kept beside the file under a name that tells this file's state."""
        faiss = require("faiss", "search")

        stat = self.path.stat()
        state = hashlib.blake2b(f"{stat.st_size} {stat.st_mtime_ns} {EXACT}".encode(), digest_size=8).hexdigest()
        folder = self.path.with_suffix(".index")
        kept = folder / f"{name}-{state}.faiss"
        if kept.exists():
            try:
                return faiss.read_index(str(kept), faiss.IO_FLAG_MMAP_IFC)
            except RuntimeError:
                print(f"{kept} is damaged: it is built anew", file=sys.stderr)
        index = self.build(name)
        try:
            folder.mkdir(exist_ok=True)
            with whole(kept) as part:
                faiss.write_index(index, str(part))
                for old in folder.glob(f"{name}-*.faiss"):
                    old.unlink()
        except (OSError, RuntimeError) as error:
            print(f"the index can't be kept in {folder}, so that each query builds it: {error}", file=sys.stderr)
        return index

    def build(self, name: str) -> Any:
        """The FAISS index of an input's vectors, whose ids are their places in the file."""
        faiss = require("faiss", "search")

        kind = f"HNSW{NEIGHBOURS}" if self.many else "Flat"
        index = faiss.index_factory(self.width, f"IDMap,{kind}", faiss.METRIC_INNER_PRODUCT)
        for places, vectors in self.groups(name):
            index.add_with_ids(np.ascontiguousarray(vectors), places)
        return index

    def nearest(self, vector: np.ndarray, k: int, among: Sequence[str]) -> list[Hit]:
        """The k items of some inputs that are most similar to a unit vector (D,), the nearest first."""
        hits = []
        for name in among:
            index = self.index(name)
            if self.many:
                faiss = require("faiss", "search")

                faiss.ParameterSpace().set_index_parameter(index, "efSearch", max(BREADTH, 2 * k))
            similarity, places = index.search(vector[None], k)
            found = [(place, near) for place, near in zip(places[0].tolist(), similarity[0].tolist()) if place >= 0]
            items = self.items(name, [place for place, _ in found])
            hits += [Hit(one, name, near, source) for (one, source), (_, near) in zip(items, found)]
        return sorted(hits, key=lambda hit: -hit.similarity)[:k]
