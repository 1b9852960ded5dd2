"""A file of embeddings, and the FAISS indices of its vectors, which are stored next to it.

Letters in shapes: D is the width of the embeddings, N the number of vectors.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mm.extras import require
from mm.files import whole
from mm.messages import near

if TYPE_CHECKING:
    import faiss

EMBEDDING = "embedding"  # the column of all inputs together; that of one, or of a tower of them, is NAME/embedding
# Number of rows above which a graph is searched (HNSW, Malkov 2016), which may miss some of the nearest vectors. Below,
# all vectors are compared, which takes 5 ms for 100,000 vectors of width 128 on one thread.
MAX_EXACT = 1_000_000
HNSW_LINKS, HNSW_BREADTH = 32, 128  # of the graph: links of a vector, candidates of a search
log = logging.getLogger("mm")


class Hit(NamedTuple):
    """One result of a search.

    Attributes:
        id: ID of the row.
        input: The input, or tower of inputs, whose vector was found.
        similarity: Cosine similarity of the query and the found vector.
        source: Description of the raw values: a text, a path, or cells of a table.
    """

    id: str
    input: str
    similarity: float
    source: str | None


class EmbeddingIndex:
    """An opened file of embeddings that can be searched.

    Up to 1,000,000 rows the search is exact. For larger files it uses a graph (HNSW, Malkov 2016), which may miss some
    of the nearest vectors.

    Example:
        index = EmbeddingIndex.open("outputs/embeddings/embeddings.parquet")
        index.search(vector, top_k=5, inputs=["vision"])

    Args:
        path: Path of the Parquet file.

    Raises:
        ValueError: If it was not written by `embed`.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self.file = pq.ParquetFile(path)
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"index={path}: can't be read as Parquet ({error}); mm embed writes one") from None
        schema = self.file.schema_arrow
        metadata = schema.metadata or {}
        if EMBEDDING not in schema.names or b"model" not in metadata:
            raise ValueError(f"index={path}: was not written by mm embed")
        self.inputs = [name.removesuffix(f"/{EMBEDDING}") for name in schema.names if name.endswith(f"/{EMBEDDING}")]
        for name in self.inputs:  # names of files are made of them
            if not name.isidentifier():
                raise ValueError(f"index={path}: was not written by mm embed: it has an input {name!r:.80}")
        columns = [EMBEDDING, *(f"{name}/{EMBEDDING}" for name in self.inputs)]
        vectors = [schema.field(name).type for name in columns]
        fixed = all(pa.types.is_fixed_size_list(kind) and kind.value_type == pa.float32() for kind in vectors)
        if not fixed or len(set(vectors)) > 1 or not all(f"{name}/source" in schema.names for name in self.inputs):
            raise ValueError(f"index={path}: was not written by mm embed: its columns are others")
        self.model = metadata[b"model"].decode(errors="replace")  # the digest of its weights
        self.width = schema.field(EMBEDDING).type.list_size
        self.approximate = self.file.metadata.num_rows > MAX_EXACT

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a file of embeddings, or the embeddings.parquet in a folder."""
        path = Path(path)
        return cls(path / "embeddings.parquet" if path.is_dir() else path)

    def search(self, query: np.ndarray, top_k: int = 10, inputs: Sequence[str] | None = None) -> list[Hit]:
        """Return the items that are most similar to a query, the most similar first.

        Args:
            query: Unit vector of the query, (D,) float32, as returned by `embed_query`.
            top_k: Maximum number of items.
            inputs: Names of the inputs, or towers of inputs, whose items are searched; None: all.

        Raises:
            ValueError: If the file lacks one of the inputs, or if its vectors have another width.
        """
        if query.shape != (self.width,):
            raise ValueError(f"query: got a vector of shape {query.shape}, but {self.path} holds ({self.width},)")
        hits = []
        for name in self.check_inputs(inputs):
            index = self.load_index(name)
            if self.approximate:
                faiss = require("faiss", "search")

                faiss.ParameterSpace().set_index_parameter(index, "efSearch", max(HNSW_BREADTH, 2 * top_k))
            similarity, positions = index.search(query[None], top_k)  # SWIG's is replaced
            pairs = [(i, x) for i, x in zip(positions[0].tolist(), similarity[0].tolist()) if i >= 0]
            items = self.items(name, [i for i, _ in pairs])
            hits += [Hit(id, name, x, source) for (id, source), (_, x) in zip(items, pairs)]
        return sorted(hits, key=lambda hit: -hit.similarity)[:top_k]

    def check_inputs(self, inputs: Sequence[str] | None) -> list[str]:
        """Return the names of the inputs to search; by default, all.

        Raises:
            ValueError: If the file lacks one of the inputs.
        """
        for name in inputs or ():
            if name not in self.inputs:
                known = ", ".join(self.inputs)
                raise ValueError(f"inputs: got '{name}', but {self.path} has {known}{near(name, self.inputs)}")
        return list(inputs or self.inputs)

    def vectors(self, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the positions in the file, (N,), and the vectors, (N, D), of an input for each row group.

        Rows in which the input is absent are left out.
        """
        first = 0
        for group in range(self.file.num_row_groups):
            column = self.file.read_row_group(group, [f"{name}/{EMBEDDING}"]).column(0).combine_chunks()
            present = np.flatnonzero(column.is_valid())
            vectors = column.drop_null().flatten().to_numpy().reshape(-1, self.width)
            yield first + present, vectors
            first += len(column)

    def items(self, name: str, positions: Sequence[int]) -> list[tuple[str, str | None]]:
        """Return the ID and the source of the rows at some positions. Only the necessary row groups are read."""
        sizes = [self.file.metadata.row_group(group).num_rows for group in range(self.file.num_row_groups)]
        ends = np.cumsum(sizes)
        items = {}
        for group in {int(np.searchsorted(ends, position, side="right")) for position in positions}:
            first = int(ends[group]) - sizes[group]
            ids, sources = (self.file.read_row_group(group, [column]).column(0) for column in ("id", f"{name}/source"))
            for position in positions:
                if first <= position < ends[group]:
                    items[position] = (ids[position - first].as_py(), sources[position - first].as_py())
        return [items[position] for position in positions]

    def load_index(self, name: str) -> "faiss.Index":
        """Return the FAISS index of an input's vectors.

        It is built on first use, and stored next to the file under a name that depends on the size and the modification
        time of the file. If it can't be stored, a warning is logged.
        """
        faiss = require("faiss", "search")

        stat = self.path.stat()
        state = hashlib.blake2b(f"{stat.st_size} {stat.st_mtime_ns} {MAX_EXACT}".encode(), digest_size=8).hexdigest()
        folder = self.path.with_suffix(".index")
        file = folder / f"{name}-{state}.faiss"
        if file.exists():
            try:
                return faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
            except RuntimeError:
                log.warning("%s is damaged: it is built anew", file)
        index = self.build_index(name)
        try:
            folder.mkdir(exist_ok=True)
            with whole(file) as part:
                faiss.write_index(index, str(part))
                for old in folder.glob(f"{name}-*.faiss"):
                    old.unlink()
        except (OSError, RuntimeError) as error:
            log.warning("the index can't be kept in %s, so that each query builds it: %s", folder, error)
        return index

    def build_index(self, name: str) -> "faiss.Index":
        """Build the FAISS index of an input's vectors. Their IDs in the index are their positions in the file."""
        faiss = require("faiss", "search")

        kind = f"HNSW{HNSW_LINKS}" if self.approximate else "Flat"
        index = faiss.index_factory(self.width, f"IDMap,{kind}", faiss.METRIC_INNER_PRODUCT)
        for positions, vectors in self.vectors(name):
            index.add_with_ids(np.ascontiguousarray(vectors), positions)
        return index
