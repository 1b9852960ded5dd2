"""`mm evaluate` and `mm predict` on data that is not quite as one would wish."""

import csv
import json
from pathlib import Path

import pyarrow.parquet
import pytest
from conftest import COLUMNS, TINY, write_manifest


@pytest.fixture(scope="module")
def model(mm_once, tmp_path_factory, manifest):
    folder = tmp_path_factory.mktemp("trained")
    args = [*COLUMNS, *TINY, f"datamodule.path={manifest}", f"paths.outputs={folder}", "run=r", "trainer.max_epochs=1"]
    mm_once(folder, "train", *args)
    return folder / "r/model"


@pytest.fixture
def broken(tmp_path) -> Path:
    """Row 2's picture is cut off, row 4's sound is missing, row 5's words are empty, row 7's label is new."""
    changes = {
        "sound": lambda row, line: line.update(sound="nowhere.wav") if row == 4 else None,
        "words": lambda row, line: line.update(words="") if row == 5 else None,
        "label": lambda row, line: line.update(colour="mauve") if row == 7 else None,
        "split": lambda row, line: line.pop("split"),
    }
    path = write_manifest(tmp_path / "broken", rows=9, **changes)
    picture = path.parent / "media/2.png"
    picture.write_bytes(picture.read_bytes()[:60])
    return path


def rows_of(folder: Path) -> list[dict]:
    return pyarrow.parquet.read_table(folder / "predictions.parquet").to_pylist()


def test_predict_has_a_line_for_every_row(mm, model, broken):
    run = mm("predict", f"checkpoint={model}", "datamodule=manifest", f"datamodule.path={broken}")
    assert run.status == 0, run.err
    rows = rows_of(run.folder)
    assert [row["id"] for row in rows] == [f"r{i}" for i in range(9)]
    for i, row in enumerate(rows):
        assert (row["target/prediction"] is None) == (i in (2, 4)), row
        assert (row["error"] is None) == (i not in (2, 4)), row
    assert "can't read the image" in rows[2]["error"]
    assert "nowhere.wav" in rows[4]["error"]
    assert run.metrics["data/faulty_rows"] == 2
    with (run.folder / "errors.csv").open() as file:
        assert [(line["row"], line["id"], line["column"]) for line in csv.DictReader(file)] == [
            ("2", "r2", "photo"),
            ("4", "r4", "sound"),
        ]
    kept = mm(
        "predict",
        f"checkpoint={model}",
        "datamodule=manifest",
        f"datamodule.path={broken}",
        "datamodule.on_error=missing",
        "format=csv",
    )
    with (kept.folder / "predictions.csv").open() as file:
        assert all(line["target/prediction"] for line in csv.DictReader(file))
    assert not (kept.folder / "predictions.parquet").exists()


def test_evaluate_stops_at_the_first_bad_row_or_counts_them(mm, model, broken, tmp_path):
    args = [f"checkpoint={model}", "datamodule=manifest", f"datamodule.path={broken}"]
    stopped = mm("evaluate", *args)
    assert stopped.status == 2
    for part in ("rows.csv: row 4 (id 'r4')", "column 'sound'", "nowhere.wav", "datamodule.on_error=drop"):
        assert part in stopped.err
    dropped = mm("evaluate", *args, "datamodule.on_error=drop")
    assert dropped.status == 0, dropped.err
    assert dropped.metrics["test/rows"] == 9 - 3  # the unknown label as well
    assert dropped.metrics["data/faulty_rows"] == 3
    missing = mm("evaluate", *args, "datamodule.on_error=missing")
    assert missing.metrics["test/rows"] == 9 - 1  # a row whose label is not known is not measured
    assert missing.metrics["test[audio]/rows"] == 9 - 2
    assert missing.metrics["data/faulty_rows"] == 3


def test_inputs_that_the_data_lacks_are_absent(mm, model, manifest, tmp_path):
    path = tmp_path / "words.jsonl"
    path.write_text("\n".join(json.dumps({"words": f"it is {c}", "colour": c}) for c in ("red", "blue")))
    lacking = mm("evaluate", f"checkpoint={model}", "datamodule=manifest", f"datamodule.path={path}")
    assert lacking.status == 2
    assert "photo" in lacking.err
    assert "datamodule.inputs" in lacking.err
    run = mm(
        "evaluate", f"checkpoint={model}", "datamodule=manifest", f"datamodule.path={path}", "datamodule.inputs=[text]"
    )
    assert run.status == 0, run.err
    assert "no input 'vision': it is absent in every row" in run.out
    assert run.metrics["test/rows"] == run.metrics["test[text]/rows"] == 2
    assert "test[vision]/rows" not in run.metrics


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["checkpoint=nowhere", "datamodule=manifest", "datamodule.path=rows.csv"], "no model directory at nowhere"),
        (["checkpoint=nowhere"], "no model directory at nowhere"),
        (["checkpoint=MODEL"], "datamodule.path must be set"),
        (["checkpoint=MODEL", "datamodule=manifest", "datamodule.path=x.csv"], "x.csv: no such file"),
        (
            [
                "checkpoint=MODEL",
                "datamodule=manifest",
                "datamodule.path=rows.csv",
                "datamodule.transforms.text.window_overlap=0",
            ],
            "its own transforms",
        ),
        (["datamodule=digits"], "checkpoint"),
    ],
)
def test_mistakes(mm, model, tmp_path, args, said):
    (tmp_path / "rows.csv").write_text("words\nred\n")
    for verb in ("evaluate", "predict"):
        run = mm(verb, *(a.replace("MODEL", str(model)) for a in args))
        assert run.status == 2
        assert said in run.err
        assert "Traceback" not in run.err
