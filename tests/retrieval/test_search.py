"""`embed` and `search` from Python, against brute force."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
import torch

from mm.batching import finish
from mm.retrieval import EmbeddingIndex, embed, search


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny.write_rows(tmp_path_factory.mktemp("rows") / "rows.csv")


@pytest.fixture(scope="module")
def model(path):
    return tiny.train_model(tiny.build_data(path), steps=5)


@pytest.fixture
def report(model, path, tmp_path):
    return embed(model, tiny.build_data(path), tmp_path / "new/embeddings.parquet", device="cpu")


def test_a_row_of_the_file_for_each_row_of_the_data(model, path, report):
    table = pq.read_table(report.path)
    assert table["id"].to_pylist() == [f"r{row}" for row in range(240)]
    assert report.counts == {"embedding": 240, "text": 240, "title": 160}
    assert report.metrics["embed/title"] == 160 and report.metrics["data/faulty_rows"] == 0
    assert report.table().to_dicts()[2] == {"input": "title", "vectors": 160}
    sample = {"text": "it is odd!!", "title": "a odd one"}
    row = next(i for i, x in enumerate(table["title/source"].to_pylist()) if x == "a odd one" and i % 4 == 2)
    batch = finish(model.read([sample]), model.transforms)
    with torch.inference_mode():
        output = model.model(batch.inputs, batch.masks)
    for column, x in (("title/embedding", output.features["title"].pooled), ("embedding", output.fused.pooled)):
        assert table[column][row].as_py() == pytest.approx((x[0] / x[0].norm()).tolist(), abs=1e-5)
    assert not list(report.path.parent.glob("*.part"))


def test_the_nearest_items_are_those_of_brute_force(model, report):
    found = search(model, report.path, "a good one", top_k=5, inputs=["title"], input="title")
    assert found.query_input == "title" and not found.aligned
    rows = [row for row in pq.read_table(report.path).to_pylist() if row["title/embedding"] is not None]
    query = next(row["title/embedding"] for row in rows if row["title/source"] == "a good one")
    similarity = sorted((float(np.dot(query, row["title/embedding"])) for row in rows), reverse=True)[:5]
    assert [hit.similarity for hit in found.hits] == pytest.approx(similarity, abs=1e-5)
    assert {hit.source for hit in found.hits} == {"a good one"}
    assert found.metrics == {"search/similarity": found.hits[0].similarity}
    assert found.table().columns[0] == "rank" and len(found.table().rows) == 5


def test_an_index_is_searched_with_vectors(report):
    index = EmbeddingIndex.open(report.path.parent)
    assert (index.inputs, index.width) == (["text", "title"], 8)
    vector = np.array(pq.read_table(report.path)["text/embedding"][7].as_py(), dtype=np.float32)
    hits = index.search(vector, top_k=300)
    assert hits[0].similarity == pytest.approx(1, abs=1e-6) and len(hits) == 300
    assert [hit.similarity for hit in hits] == sorted((hit.similarity for hit in hits), reverse=True)
    with pytest.raises(ValueError, match=r"got a vector of shape \(3,\), but .* holds \(8,\)"):
        index.search(vector[:3])
    with pytest.raises(ValueError, match="inputs: got 'titel', but .* has text, title; did you mean 'title'"):
        index.search(vector, inputs=["titel"])


def test_mistakes_are_named(model, path, report, caplog):
    with pytest.raises(ValueError, match="top_k: got 0"):
        search(model, report.path, "x", top_k=0)
    with pytest.raises(ValueError, match="query=x: text or title[?]"):
        search(model, report.path, "x")
    other = tiny.train_model(tiny.build_data(path), steps=1)
    with pytest.raises(ValueError, match="was written by another model, or with other weights"):
        search(other, report.path, "x", input="text")
    search(model, report.path, "x", input="text", inputs=["text"])
    kept = next(report.path.with_suffix(".index").iterdir())
    kept.write_bytes(kept.read_bytes()[:50])
    search(model, report.path, "x", input="text", inputs=["text"])
    assert "is damaged: it is built anew" in caplog.text
