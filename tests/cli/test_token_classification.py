"""Tags of words, from a table to what a person reads."""

import json

import pytest
import yaml

import mm as package

NAMES, PLACES = ("Ann", "Bob Lee", "Zoë"), ("Rome", "New York", "Ulm")
ARGS = ["datamodule=text", "model/heads=token_classification", "model/fusion=sum", "monitor.metric=val/f1"]
ARGS += ["model/encoders/text=recurrent", "model.embed_dim=32", "datamodule.num_workers=0", "datamodule.batch_size=8"]
ARGS += ["trainer.accelerator=cpu", "datamodule.columns.text=text", "datamodule.columns.target=tags"]
ANCHOR = "model.fusion.anchor=text"


def tagged(words: str, kind: str) -> list[str]:
    return [f"{'I' if i else 'B'}-{kind}" for i in range(len(words.split()))]


@pytest.fixture
def rows(tmp_path):
    """Who is where; a cell of tags is a list, or separated by blanks."""
    lines = []
    for i in range(48):
        who, where = NAMES[i % 3], PLACES[i // 3 % 3]
        tags = [*tagged(who, "who"), "O", "O", *tagged(where, "place")]
        split = ("train", "train", "val", "test")[i % 4]
        lines.append({"text": f"{who} is in {where}", "tags": tags if i % 2 else " ".join(tags), "split": split})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_learns_tells_and_serves(mm, rows):
    args = [
        *ARGS,
        ANCHOR,
        f"datamodule.path={rows}",
        "task.optimizer.lr=0.01",
        "trainer.max_epochs=12",
        "trainer.check_val_every_n_epoch=6",
        "run=tags",
    ]
    run = mm("train", *args)
    assert run.status == 0, run.err
    assert run.metrics["test/f1"] == run.metrics["test/token_accuracy"] == run.metrics["test/f1/place"] == 1
    assert (run.folder / "test_entities.png").exists()
    assert yaml.safe_load((run.folder / "config.yaml").read_text())["datamodule"]["transforms"]["text"][
        "return_offsets"
    ]
    text = "Bob Lee is in New York"
    (answer,) = package.load(run.folder / "model").predict([{"text": text}])
    said = [
        (found["type"], found["text"], text[found["start"] : found["end"]]) for found in answer["target"]["prediction"]
    ]
    assert said == [("who", "Bob Lee", "Bob Lee"), ("place", "New York", "New York")]
    measured = mm("evaluate", "checkpoint=outputs/tags/model", "datamodule=text", f"datamodule.path={rows}")
    assert measured.status == 0, measured.err
    assert measured.metrics["test/f1"] == 1
    windows = ["datamodule.transforms.text.max_length=12", "datamodule.transforms.text.overflow=window"]
    cut = mm("train", *args[:-1], *windows, "datamodule.transforms.text.window_overlap=0.5", "run=windows")
    assert cut.status == 0, cut.err
    assert cut.metrics["test/f1"] > 0.8  # of words as well that two windows have


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "predicts something of each token: set model.fusion.anchor"),
        (["model.fusion.anchor=txt"], "model.fusion.anchor: got 'txt', wanted one of text"),
        (
            [ANCHOR, "model.heads.target.target_codec.scheme=bio2"],
            "mm: model.heads.target.target_codec.scheme: got 'bio2', wanted ",
        ),
        (
            [ANCHOR, "+model.heads.target.target_codec.schme=bio"],
            "unexpected keyword argument 'schme'; did you mean 'scheme'",
        ),
        ([ANCHOR, "+model.heads.target.class_weigths=balanced"], "'class_weigths'; did you mean 'class_weights'?"),
    ],
)
def test_mistakes(mm, rows, args, said):
    run = mm("train", *ARGS, f"datamodule.path={rows}", "trainer.max_epochs=1", *args)
    assert run.status == 2
    assert said in run.err
    assert "Traceback" not in run.err


def test_a_row_with_too_few_tags_is_named(mm, rows):
    lines = rows.read_text().splitlines()
    lines[4] = json.dumps({"text": "Ann is here", "tags": "B-who O", "split": "train"})
    rows.write_text("\n".join(lines))
    args = [*ARGS, ANCHOR, f"datamodule.path={rows}", "trainer.max_epochs=1"]
    run = mm("train", *args)
    assert run.status == 2
    assert "row 4 (id '4'), column 'tags': 2 tags, but the text has 3 words" in run.err
    kept = mm("train", *args, "datamodule.on_error=missing")
    assert kept.status == 0, kept.err
    assert kept.metrics["data/faulty_rows"] == 1
