"""`mm embed` and `mm search`, as a user types them."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from conftest import COLUMNS, TINY

import mm as package
from mm.batching import finish

TRAIN = [*COLUMNS, *TINY, "trainer.max_epochs=1"]


@pytest.fixture
def trained(mm, manifest):
    """outputs/model of a supervised model of three inputs; rows.csv and media/ beside it."""
    shutil.copytree(manifest.parent, ".", dirs_exist_ok=True)
    run = mm("train", *TRAIN, "datamodule.path=rows.csv", "run=t")
    assert run.status == 0, run.err
    return run.folder / "model"


def embed(mm, model: Path, *args: str, name: str = "e", path: str = "rows.csv") -> Path:
    run = mm(
        "embed", f"checkpoint={model}", f"datamodule.path={path}", "datamodule.num_workers=0", f"run={name}", *args
    )
    assert run.status == 0, run.err
    assert run.folder == Path(f"outputs/{name}")
    assert not list(run.folder.glob("*.part"))
    return run.folder / "embeddings.parquet"


def test_every_row_of_every_input(mm, trained):
    def blank(line: str) -> str:
        number = int(line.split(",")[0].removeprefix("r"))
        cells = line.split(",")
        if number % 4 == 1:
            cells[3] = ""  # no sound
        return ",".join(cells)

    head, *lines = Path("rows.csv").read_text(encoding="utf-8").splitlines()
    Path("some.csv").write_text("\n".join([head, *map(blank, lines)]) + "\n", encoding="utf-8")
    table = pq.read_table(embed(mm, trained, "datamodule.batch_size=7", path="some.csv"))
    assert table["id"].to_pylist() == [f"r{i}" for i in range(60)]
    assert table["row"].to_pylist() == list(range(60))
    for name in ("text", "vision", "audio"):
        kind = table.schema.field(f"{name}/embedding").type
        assert (kind.list_size, str(kind.value_type)) == (16, "float")
    assert [x is None for x in table["audio/embedding"].to_pylist()] == [i % 4 == 1 for i in range(60)]
    assert [x is None for x in table["audio/source"].to_pylist()] == [i % 4 == 1 for i in range(60)]
    assert table["text/source"][4].as_py() == "it is green"
    assert table["vision/source"][4].as_py() == "media/4.png"
    assert table.column_names.count("embedding") == 1

    # against the model itself, one row at a time
    loaded = package.load(trained)
    for i in (4, 5):
        line = blank(lines[i]).split(",")
        sample = {"text": line[1], "vision": line[2], "audio": line[3] or None}
        batch = finish(loaded.read([sample]), loaded.transforms)
        with torch.no_grad():
            output = loaded.model(batch.inputs, batch.masks)
        wanted = {f"{name}/embedding": f.pooled[0] for name, f in output.features.items()}
        wanted["embedding"] = output.fused.pooled[0]
        for column, vector in wanted.items():
            found = table[column][i].as_py()
            if found is None:
                assert (column, i) == ("audio/embedding", 5)
            else:
                expected = (vector / vector.norm()).tolist()
                assert found == pytest.approx(expected, abs=1e-5)


def test_splits_and_rows_that_cannot_be_read(mm, trained):
    Path("media/14.png").write_bytes(b"no image")
    refused = mm("embed", f"checkpoint={trained}", "datamodule.path=rows.csv", "datamodule.num_workers=0", "run=x")
    assert refused.status == 2
    assert "row 14 (id 'r14'), column 'photo': can't read the image" in refused.err
    assert not Path("outputs/x/embeddings.parquet").exists()
    table = pq.read_table(embed(mm, trained, "datamodule.on_error=drop", "split=test"))
    assert table["id"].to_pylist() == ["r12", "r13", "r27", "r28", "r29", "r42", "r43", "r44", "r57", "r58", "r59"]
    assert "r14" in Path("outputs/e/errors.csv").read_text(encoding="utf-8")
    table = pq.read_table(embed(mm, trained, "datamodule.on_error=missing", "split=test", name="m"))
    assert table["vision/embedding"][2].as_py() is None
    assert table["embedding"][2].as_py() is not None


def test_windows_of_a_text_are_one_row(mm, manifest):
    shutil.copytree(manifest.parent, ".", dirs_exist_ok=True)
    text = ["datamodule.transforms.text.overflow=window", "datamodule.transforms.text.max_length=8"]
    run = mm("train", *TRAIN, *text, "datamodule.path=rows.csv", "run=t")
    assert run.status == 0, run.err
    model = run.folder / "model"
    table = pq.read_table(embed(mm, model))
    assert len(table) == 60
    loaded = package.load(model)
    batch = finish(loaded.read([{"text": "it is green"}]), loaded.transforms)
    assert len(batch.row) == 2
    with torch.no_grad():
        pooled = loaded.model(batch.inputs, batch.masks).features["text"].pooled
    mean = (pooled / pooled.norm(dim=1, keepdim=True)).mean(0)
    assert table["text/embedding"][4].as_py() == pytest.approx((mean / mean.norm()).tolist(), abs=1e-5)
