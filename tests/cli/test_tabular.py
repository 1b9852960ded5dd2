"""Numbers, categories and lists beside a text, from a table to what is served."""

import csv
import random

import pyarrow.parquet
import pytest

import mm as package

ARGS = ["datamodule=manifest", "datamodule.columns.text=words", "datamodule.columns.target=label"]
ARGS += ["datamodule.columns.tabular=[age,city,{column: likes, separator: '|'}]", "datamodule.num_workers=0"]
ARGS += ["model.encoders.text.embed_dim=16", "model.encoders.text.num_layers=1", "model.embed_dim=16"]
ARGS += ["trainer.accelerator=cpu", "datamodule.batch_size=16"]


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "city", "likes", "words", "label", "split"])
        writer.writerows(rows)
    return path


@pytest.fixture
def rows(tmp_path):
    """Neither the words nor the other columns alone tell the label."""
    draw = random.Random(0)
    lines = []
    for i in range(160):
        age, good = draw.randint(18, 80), draw.random() < 0.5
        likes = "|".join(draw.sample("abcd", draw.randint(0, 3)))
        points = (age > 49) + good + ("a" in likes)
        split = ("train", "train", "train", "val", "test")[i % 5]
        cells = ["" if i % 9 == 8 else age, draw.choice(["Bern", "Ulm", ""]), likes, "good" if good else "bad"]
        lines.append([*cells, "yes" if points >= 2 else "no", split])
    return write(tmp_path / "rows.csv", lines)


def test_learns_tells_and_serves(mm, rows, tmp_path):
    args = [
        *ARGS,
        f"datamodule.path={rows}",
        "task.optimizer.lr=0.01",
        "trainer.max_epochs=15",
        "trainer.check_val_every_n_epoch=5",
        "run=a",
    ]
    run = mm("train", *args)
    assert run.status == 0, run.err
    assert "city is one of 2 classes; likes is a list of 4 classes" in run.out
    assert run.metrics["test/accuracy"] > 0.8
    assert run.metrics["test/accuracy"] > run.metrics["test[text]/accuracy"]
    assert {"data/oov/tabular", "test[tabular]/accuracy"} & set(run.metrics) == {"test[tabular]/accuracy"}

    model = package.load(run.folder / "model")
    told = pyarrow.parquet.read_table(run.folder / "predictions.parquet").to_pylist()[0]
    with rows.open(newline="") as file:
        line = list(csv.DictReader(file))[told["row"]]
    cells = {name: line[name] for name in ("age", "city", "likes")}
    answer = model.predict({"text": line["words"], "tabular": cells})["target"]
    assert answer["probability"]["yes"] == pytest.approx(told["target/probability/yes"], abs=1e-5)
    assert model.predict({"tabular": {"age": 41, "likes": ["a"]}})["target"]["prediction"] in ("yes", "no")
    with pytest.warns(UserWarning, match="'tabular' names what the training rows do not have"):
        model.predict({"tabular": {"city": "Oslo"}})
    with pytest.raises(ValueError, match="sample 0 has no input"):
        model.predict({"tabular": {"city": ""}})
    with pytest.raises(ValueError, match="no column 'agee'; there are .* did you mean 'age'"):
        model.predict({"tabular": {"agee": 41}})

    new = write(tmp_path / "new.csv", [["33", "Oslo", "e|a", "good", "yes", "test"], ["", "", "", "bad", "no", "test"]])
    given = ["checkpoint=outputs/a/model", "datamodule=manifest", f"datamodule.path={new}"]
    measured = mm("evaluate", *given)
    assert measured.status == 0, measured.err
    assert measured.metrics["data/oov/tabular"] == 1
    assert "tabular: 1 rows name what the training rows do not have" in measured.out
    assert measured.metrics["test[tabular]/rows"] == 1
    study = mm("evaluate", *given[:2], f"datamodule.path={rows}", "robustness=default", "robustness.severities=[0,1]",
               "robustness.corruptions=[missing]")  # fmt: skip
    assert study.status == 0, study.err
    assert "missing" in study.out
    looked = mm("diagnose", "run=a")
    assert looked.status == 0 and "every input is alive" in looked.out, looked.err

    assert mm("embed", *given, "run=vectors").status == 0
    found = mm("search", "checkpoint=outputs/a/model", "index=vectors", 'query={"city": "Bern"}', "among=tabular")
    assert found.status == 0, found.err
    assert '{"age": "33", "city": "Oslo", "likes": "e|a"}' in found.out
    wrong = mm("search", "checkpoint=outputs/a/model", "index=vectors", "query={age", "input=tabular")
    assert wrong.status == 2 and "wanted columns and their cells" in wrong.err

    write(new, [["old", "Bern", "a", "good", "yes", "test"]])
    broken = mm("predict", *given)
    assert broken.status == 0, broken.err  # mm predict tells, and goes on
    assert "age: got 'old', wanted a number" in (broken.folder / "errors.csv").read_text()


def test_the_other_encoder_and_what_is_refused(mm, rows):
    args = [*ARGS, f"datamodule.path={rows}", "trainer.max_epochs=1"]
    run = mm("train", *args, "model/encoders/tabular=transformer", "datamodule.transforms.tabular.max_length=1",
             "task.freeze=['^encoders\\.tabular']", "run=b")  # fmt: skip
    assert run.status == 0, run.err
    assert run.metrics["data/truncated/tabular"] > 0
    shards = mm("shard", *ARGS[:4], f"datamodule.path={rows}", "out=shards")
    assert shards.status == 2
    assert "the input 'tabular' is tabular, which can't be written to shards" in shards.err
    typo = mm("train", *args, "datamodule.columns.tabular=[age,citty]")
    assert typo.status == 2
    assert "no column 'citty'" in typo.err and "did you mean 'city'" in typo.err
    budget = mm("train", *args, "datamodule.max_batch_length={tabular: 20}")
    assert budget.status == 0, budget.err
