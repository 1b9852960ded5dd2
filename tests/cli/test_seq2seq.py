"""Texts in, texts out: numbers are written as words, from a table to a served answer, in two kinds of tokenizer."""

import csv
import random

import pytest

import mm as package

WORDS = {"1": "one", "2": "two"}
ARGS = ["datamodule=text", "model/heads=seq2seq", "model/fusion=sum", "model.fusion.anchor=text", "run=written"]
ARGS += ["datamodule.columns.text=text", "datamodule.columns.target=said", "trainer.accelerator=cpu"]
ARGS += [
    "model.embed_dim=32",
    "model.encoders.text.embed_dim=32",
    "model.heads.target.num_layers=1",
    "model.heads.target.dropout=0",
]
ARGS += ["datamodule.batch_size=16", "task.optimizer.lr=0.003", "datamodule.num_workers=0", "monitor.metric=val/bleu"]
ARGS += ["model.heads.target.target_codec.vocab_size=300", "model.heads.target.target_codec.max_length=16"]


@pytest.fixture
def rows(tmp_path):
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        write = csv.writer(file)
        write.writerow(["text", "said", "split"])
        draw = random.Random(0)
        for i in range(150):
            digits = [draw.choice("12") for _ in range(5)]
            split = ("train", "train", "val", "train", "test", "train")[i % 6]
            write.writerow([" ".join(digits), " ".join(WORDS[d] for d in digits), split])
    return tmp_path / "rows.csv"


def test_learns_writes_and_serves(mm, rows):
    own = ["model.encoders.text.tokenizer=bpe", "model.encoders.text.vocab_size=261"]  # no digits in one token
    own += ["model.heads.target.target_codec.tokenizer=wordpiece"]
    run = mm(
        "train", *ARGS, *own, f"datamodule.path={rows}", "trainer.max_epochs=30", "trainer.check_val_every_n_epoch=10"
    )
    assert run.status == 0, run.err
    assert run.metrics["test/bleu"] > 0.8
    assert run.metrics["test/chrf"] > 0.8
    for folder in (rows.parent / ".cache").rglob("tokenizers"):
        folder.rename(folder.with_name("away"))  # the model directory has its own
    loaded = package.load(run.folder / "model")
    assert (run.folder / "model/labels/target/tokenizer.json").is_file()
    assert (run.folder / "model/tokenizer/text/tokenizer.json").is_file()
    with rows.open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["split"] == "train"]
    answers = loaded.predict([{"text": line["text"]} for line in lines])
    right = [answer["target"]["prediction"] == line["said"] for answer, line in zip(answers, lines)]
    assert sum(right) > 0.6 * len(right)
    again = mm("evaluate", f"checkpoint={run.folder}/model", *ARGS[:1], f"datamodule.path={rows}")
    assert again.status == 0, again.err
    assert again.metrics["test/bleu"] == pytest.approx(run.metrics["test/bleu"])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["model.heads.target.target_codec.max_length=4"],
            "at most 4 are written; raise target_codec.max_length of its head",
        ),
        (["model.heads.target.target_codec.tokenizer=bpee"], "tokenizer: got 'bpee', wanted"),
        (["model.heads.target.target_codec.vocab_size=20"], "vocab_size: got 20, wanted at least 261"),
        (["model.encoders.text.tokenizer=wordpice"], "tokenizer: got 'wordpice', wanted"),
        (["model.heads.target.num_heads=5"], "num_heads: got 5, which does not divide the width 32"),
    ],
)
def test_mistakes(mm, rows, args, said):
    run = mm("train", *ARGS, *args, f"datamodule.path={rows}", "trainer.max_epochs=1")
    assert run.status == 2
    assert said in run.err


def test_a_model_begins_only_with_weights_of_the_same_tokens(mm, rows):
    own = ["model.encoders.text.tokenizer=bpe", "model.encoders.text.vocab_size=280", f"datamodule.path={rows}"]
    first = mm("train", *ARGS, *own, "trainer.max_epochs=1")
    assert first.status == 0, first.err
    init = [*ARGS[:-1], *own, "run=other", f"model.init_from={first.folder}/model", "trainer.max_epochs=1"]
    assert mm("train", *init).status == 0
    other = [*init, "run=third", "model.encoders.text.tokenizer=wordpiece"]
    refused = mm("train", *other)
    assert refused.status == 2
    fix = f"model.encoders.text.tokenizer={first.folder}/model/tokenizer/text"
    assert f"has another tokenizer for 'text', so that its weights mean other tokens; set {fix}" in refused.err
    assert mm("train", *other, "run=fourth", fix).status == 0


def test_a_head_takes_nothing_of_a_classifier_of_the_same_name(mm, rows):
    splits = ("train", "train", "val", "test")
    lines = [f"a b {i},{'xy'[i % 2]},{splits[i % 4]}" for i in range(16)]
    (rows.parent / "classes.csv").write_text("\n".join(["text,said,split", *lines]))
    plain = [arg for arg in ARGS if "head" not in arg and "fusion" not in arg and "monitor" not in arg]
    first = mm("train", *plain, f"datamodule.path={rows.parent}/classes.csv", "trainer.max_epochs=1")
    assert first.status == 0, first.err
    init = [*ARGS, "run=other", f"model.init_from={first.folder}/model", "trainer.max_epochs=1"]
    second = mm("train", *init, f"datamodule.path={rows}")
    assert second.status == 0, second.err
    assert "taken: encoders.text" in second.out and "left: heads.target" in second.out


def test_a_head_begins_only_with_weights_of_the_same_tokens(mm, rows):
    first = mm("train", *ARGS, f"datamodule.path={rows}", "trainer.max_epochs=1")
    (rows.parent / "other.csv").write_text(rows.read_text().replace("one", "eins"))
    other = [*ARGS[:5], *ARGS[6:], "run=other", f"datamodule.path={rows.parent / 'other.csv'}", "trainer.max_epochs=1"]
    refused = mm("train", *other, f"model.init_from={first.folder}/model")
    assert refused.status == 2
    assert f"set model.heads.target.target_codec.tokenizer={first.folder}/model/labels/target" in refused.err


def test_diagnose_tells_of_what_is_written(mm, rows):
    run = mm("train", *ARGS, f"datamodule.path={rows}", "trainer.max_epochs=1")
    told = mm("diagnose", f"run={run.folder.name}")
    assert told.status == 0, told.err
