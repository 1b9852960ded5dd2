"""`mm search`: the right rows, the index kept and told stale, and what can go wrong."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import COLOURS, COLUMNS, TINY

from mm.retrieval.index import EMBEDDING as ALL
from mm.retrieval.index import EmbeddingIndex
from mm.retrieval.search import read_query
from mm.types import DataSpec, InputData


@pytest.fixture
def trained(mm, manifest):
    """A model directory, and its embeddings in outputs/e; rows.csv and media/ beside them."""
    shutil.copytree(manifest.parent, ".", dirs_exist_ok=True)
    run = mm("train", *COLUMNS, *TINY, "trainer.max_epochs=1", "datamodule.path=rows.csv", "run=t")
    assert run.status == 0, run.err
    model = run.folder / "model"
    done = mm("embed", f"checkpoint={model}", "datamodule.path=rows.csv", "datamodule.num_workers=0", "run=e")
    assert done.status == 0, done.err
    assert f"mm search checkpoint={model} index=outputs/e/embeddings.parquet query=..." in done.out
    return model


def hits(out: str) -> list[list[str]]:
    """Cells of the table's lines: rank, id, input, similarity, source."""
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if line.startswith("│")]


def nearest(path: Path, column: str, query: str, among: str, k: int) -> list[tuple[str, float]]:
    """By hand: ids and cosines of the rows nearest to the row `query`."""
    table = pq.read_table(path).to_pylist()
    vector = np.array(next(row[column] for row in table if row["id"] == query))
    found = [(row["id"], float(vector @ np.array(row[among]))) for row in table if row[among] is not None]
    return sorted(found, key=lambda one: -one[1])[:k]


def test_text_image_and_sound_find_their_nearest(mm, trained):
    path = Path("outputs/e/embeddings.parquet")
    for query, column, among in (
        ("it is red!", "text", "vision"),
        ("media/3.png", "vision", "audio"),
        ("media/3.wav", "audio", "text"),
    ):
        ran = mm("search", f"checkpoint={trained}", "index=e", f"query={query}", "k=5", f"among={among}")
        assert ran.status == 0, ran.err
        found = hits(ran.out)
        assert [cells[0] for cells in found] == ["1", "2", "3", "4", "5"]
        assert {cells[2] for cells in found} == {among}
        row = "r9" if column == "text" else "r3"
        wanted = nearest(path, f"{column}/{ALL}", row, f"{among}/{ALL}", 5)
        assert [float(cells[3]) for cells in found] == pytest.approx([near for _, near in wanted], abs=2e-4)
    assert found[0][4].startswith("it is")
    text = hits(mm("search", f"checkpoint={trained}", "index=e", "query=it is red!").out)
    Path("query.txt").write_text("it is red!\n", encoding="utf-8")
    assert hits(mm("search", f"checkpoint={trained}", "index=e", "query=query.txt").out) == text
    Path("it is red!").mkdir()
    assert hits(mm("search", f"checkpoint={trained}", "index=e", "query=it is red!").out) == text


def test_all_modalities_are_ranked_together(mm, trained):
    ran = mm("search", f"checkpoint={trained}", "index=outputs/e", "query=media/3.png", "k=180")
    found = hits(ran.out)
    assert found[0][1:3] == ["r3", "vision"]
    assert {cells[2] for cells in found} == {"text", "vision", "audio"}
    near = [float(cells[3]) for cells in found]
    assert near == sorted(near, reverse=True)
    assert len(hits(mm("search", f"checkpoint={trained}", "index=e", "query=red", "k=1000").out)) == 180


def test_the_index_is_kept_and_told_stale(mm, trained, monkeypatch):
    path, search = (
        Path("outputs/e/embeddings.parquet"),
        ["search", f"checkpoint={trained}", "index=e", "query=it is red"],
    )
    built = []
    build = EmbeddingIndex.build_index
    monkeypatch.setattr(EmbeddingIndex, "build_index", lambda self, name: built.append(name) or build(self, name))
    first = mm(*search, "among=vision")
    assert built == ["vision"]  # and no other
    kept = list(Path("outputs/e/embeddings.index").iterdir())
    assert [file.suffix for file in kept] == [".faiss"]
    assert mm(*search, "among=vision").out == first.out
    assert built == ["vision"]
    # a file written anew is another file, even of the same size
    table = pq.read_table(path)
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(table, path, **plain)
    size = path.stat().st_size
    assert mm(*search, "among=vision").out == first.out
    turned = table.set_column(table.column_names.index("id"), "id", pa.array(table["id"].to_pylist()[::-1]))
    vectors = table.column_names.index(f"vision/{ALL}")
    turned = turned.set_column(vectors, f"vision/{ALL}", table.column(vectors).take(list(range(59, -1, -1))))
    pq.write_table(turned, path, **plain)
    assert path.stat().st_size == size
    built.clear()
    second = mm(*search, "among=vision")
    assert built == ["vision"]
    assert [cells[1:4] for cells in hits(second.out)] == [cells[1:4] for cells in hits(first.out)]
    assert len(list(Path("outputs/e/embeddings.index").iterdir())) == 1
    # damage is seen, and mended
    kept = next(Path("outputs/e/embeddings.index").iterdir())
    kept.write_bytes(kept.read_bytes()[:100])
    third = mm(*search, "among=vision")
    assert third.out == second.out
    assert "is damaged: it is built anew" in third.err
    assert "damaged" not in mm(*search, "among=vision").err
    assert "has not learnt to bring its inputs together (task=contrastive)" in third.err  # a classifier's vectors


def test_a_folder_that_takes_no_index_is_told(mm, trained):
    Path("outputs/e/embeddings.index").write_text("a file is in the way", encoding="utf-8")
    ran = mm("search", f"checkpoint={trained}", "index=e", "query=it is red", "k=2")
    assert ran.status == 0
    assert len(hits(ran.out)) == 2
    assert "the index can't be kept in outputs/e/embeddings.index" in ran.err


def test_mistakes(mm, trained):
    def said(*args: str, model: Path = trained) -> str:
        ran = mm("search", f"checkpoint={model}", *args)
        assert ran.status == 2, ran.out
        assert "Traceback" not in ran.err
        return ran.err

    assert "query= must be set; usage: mm search" in said("index=e")
    assert "nothing reads 'amung'; did you mean 'among'?" in said("index=e", "query=x", "amung=text")
    assert "k: got '0', wanted a number from 1" in said("index=e", "query=x", "k=0")
    assert "index=f: no such file, and no run of mm embed in outputs/f" in said("index=f", "query=x")
    assert "can't be read as Parquet" in said("index=rows.csv", "query=x")
    pq.write_table(pa.table({"id": ["a"]}), "other.parquet")
    assert "was not written by mm embed" in said("index=other.parquet", "query=x")
    assert "query=nowhere.png: no such file; a text that ends like that" in said("index=e", "query=nowhere.png")
    assert "query=nowhere.txt: no such file" in said("index=e", "query=nowhere.txt")
    assert mm("search", f"checkpoint={trained}", "index=e", "query=nowhere.txt", "input=text").status == 0
    assert "can't read the image rows.csv" in said("index=e", "query=rows.csv", "input=vision")
    Path("broken.wav").write_bytes(b"RIFF")
    assert "can't read the sound broken.wav" in said("index=e", "query=broken.wav")
    assert "input=sound: the model reads text, vision, audio" in said("index=e", "query=x", "input=sound")
    assert "among=photo: outputs/e/embeddings.parquet has text, vision, audio" in said(
        "index=e", "query=x", "among=photo"
    )


def test_another_models_embeddings_are_refused(mm, trained):
    def train(name: str, *args: str) -> Path:
        two = ["datamodule.inputs=[text,vision]", *(a for a in TINY if "audio" not in a)]
        run = mm("train", *COLUMNS, *two, *args, "trainer.max_epochs=1", "datamodule.path=rows.csv", f"run={name}")
        assert run.status == 0, run.err
        return run.folder / "model"

    wide, other = train("wide", "model.embed_dim=8"), train("other", "seed=1")
    ran = mm("search", f"checkpoint={wide}", "index=e", "query=x")
    assert ran.status == 2
    assert (
        "outputs/wide/model computes embeddings of width 8, but those of outputs/e/embeddings.parquet have width 16"
        in ran.err
    )
    ran = mm("search", f"checkpoint={other}", "index=e", "query=x")
    assert ran.status == 2
    assert "was written by another model, or with other weights, than outputs/other/model" in ran.err
    done = mm("embed", f"checkpoint={other}", "datamodule.path=rows.csv", "datamodule.num_workers=0", "run=o")
    assert done.status == 0, done.err
    ran = mm("search", f"checkpoint={other}", "index=o", "query=media/1.wav")
    assert ran.status == 2
    assert "query=media/1.wav: is audio, but the model reads text, vision" in ran.err


def test_a_second_query_imports_no_more_than_it_needs(trained):
    args = ["search", f"checkpoint={trained}", "index=e", "query=it is red"]
    code = "import sys; from mm.cli import main; main(); print([n for n in NAMES if n in sys.modules])"
    names = ["lightning", "torchmetrics", "hydra", "sklearn", "transformers", "datamodules", "torchvision", "wandb"]
    done = subprocess.run(
        [sys.executable, "-c", code.replace("NAMES", json.dumps(names)), *args], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_aligned_model_finds_pictures_by_words(mm, manifest):
    shutil.copytree(manifest.parent, ".", dirs_exist_ok=True)
    task = ["task=contrastive", "task.label=target", "task.loss.same_label_pairs=positive", "task.optimizer.lr=0.01"]
    data = ["datamodule.path=rows.csv", "datamodule.batch_size=12"]
    run = mm(
        "train", *COLUMNS, *TINY, *task, *data, "trainer.max_epochs=12", "trainer.check_val_every_n_epoch=6", "run=t"
    )
    assert run.status == 0, run.err
    model = run.folder / "model"
    done = mm("embed", f"checkpoint={model}", *data, "datamodule.num_workers=0", "split=test", "run=e")
    assert done.status == 0, done.err
    for number, colour in enumerate(COLOURS):
        for among in ("vision", "audio"):
            ran = mm("search", f"checkpoint={model}", "index=e", f"query=it is {colour}!", "k=4", f"among={among}")
            assert {int(cells[1].removeprefix("r")) % 3 for cells in hits(ran.out)} == {number}, ran.out


def test_inputs_of_one_modality_are_told_apart():
    two = {name: InputData(modality="vision") for name in ("front", "back")}
    loaded: Any = SimpleNamespace(spec=DataSpec(inputs={"text": InputData(modality="text"), **two}, targets={}))
    with pytest.raises(ValueError, match="query=a.png: front or back[?] input=NAME says which is meant"):
        read_query("a.png", "", loaded)
    with pytest.raises(ValueError, match=r"is audio, but the model reads text, front \(vision\), back \(vision\)"):
        read_query("a.wav", "", loaded)
    assert read_query(__file__, "back", loaded) == ("back", __file__)
    assert read_query("a cat", "", loaded) == ("text", "a cat")
