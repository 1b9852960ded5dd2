"""The index of embeddings, against brute force."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mm.retrieval import EmbeddingIndex
from mm.retrieval import index as index_module
from mm.retrieval.embed import describe_source
from mm.retrieval.index import EMBEDDING
from mm.transforms.stored import Stored


def test_what_a_person_reads_of_an_item():
    assert describe_source("a cat") == "a cat"
    assert describe_source(Path("media/1.png")) == "media/1.png"
    assert describe_source(Stored("a.tar/1.png", bytes)) == "a.tar/1.png"
    assert describe_source("caf\udce9") == "caf\\udce9"
    for raw in (None, "", np.zeros((2, 2)), (np.zeros(3), 8000)):
        assert describe_source(raw) is None


def many(path: Path, count: int, width: int = 16) -> np.ndarray:
    """A file of random unit vectors; every third row lacks the input."""
    x = np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    vector = pa.list_(pa.float32(), width)
    columns = {
        "id": pa.array([str(i) for i in range(count)]),
        EMBEDDING: pa.array(x.tolist(), vector),
        f"text/{EMBEDDING}": pa.array([None if i % 3 == 0 else row for i, row in enumerate(x.tolist())], vector),
        "text/source": pa.array([f"row {i}" for i in range(count)]),
    }
    table = pa.table(columns).replace_schema_metadata({"model": "x"})
    pq.write_table(table, path, row_group_size=100)
    return x


@pytest.mark.parametrize("exact", [1_000_000, 10])
def test_nearest_of_many_groups(tmp_path, monkeypatch, exact):
    """Exactly, and by the graph, which finds nearly all."""
    monkeypatch.setattr(index_module, "MAX_EXACT", exact)
    x = many(tmp_path / "a.parquet", 1050)
    embeddings = EmbeddingIndex.open(tmp_path / "a.parquet")
    queries = np.random.default_rng(1).normal(size=(20, 16)).astype(np.float32)
    right = 0
    for _ in range(2):  # built, and read again
        for query in queries / np.linalg.norm(queries, axis=1, keepdims=True):
            near = x @ query
            near[::3] = -2
            wanted = np.argsort(-near)[:10]
            found = embeddings.search(query, 10, ["text"])
            right += len({hit.id for hit in found} & {str(i) for i in wanted})
            assert all(hit.source == f"row {hit.id}" and hit.input == "text" for hit in found)
            assert all(hit.similarity == pytest.approx(near[int(hit.id)], abs=1e-5) for hit in found)
    assert right == 400 if exact > 1050 else right >= 380


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"../../x/embedding": "vector", "../../x/source": "text"}, "it has an input '../../x'"),
        ({"*/embedding": "vector", "*/source": "text"}, r"it has an input '\*'"),
        ({"text/embedding": "text", "text/source": "text"}, "its columns are others"),
        ({"text/embedding": "vector"}, "its columns are others"),
        ({"text/embedding": "short", "text/source": "text"}, "its columns are others"),
    ],
)
def test_a_file_of_a_stranger_leads_nowhere(tmp_path, columns, message):
    kinds = {"vector": pa.list_(pa.float32(), 4), "short": pa.list_(pa.float32(), 2), "text": pa.string()}
    schema = pa.schema({EMBEDDING: kinds["vector"]} | {name: kinds[kind] for name, kind in columns.items()})
    empty = pa.Table.from_pylist([], schema=schema).replace_schema_metadata({"model": "x"})
    pq.write_table(empty, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=message):
        EmbeddingIndex.open(tmp_path / "a.parquet")
