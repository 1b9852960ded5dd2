"""The textbook's experiments on rows of their own, with weights from a folder."""

import json

import pytest

import mm as package

ARGS = ["trainer.accelerator=cpu", "datamodule.num_workers=0", "datamodule.column_names=null", "task.optimizer.lr=5e-3"]


@pytest.fixture
def rows(tmp_path):
    """Texts of an animal that bites or sees, its name an entity of one word or two."""
    lines = []
    for i in range(60):
        animal, verb = ("cat", "dog", "big bird")[i % 3], ("bites", "sees")[i % 2]
        words = ["the", *animal.split(), verb, *(["a", "old", "cat"][: i % 4])]
        tags = ["O", *["B-animal", "I-animal"][: len(animal.split())]]
        tags += ["O"] * (len(words) - len(tags))
        if "cat" in words[3:]:
            tags[len(words) - 1] = "B-animal"
        split = ("train", "train", "train", "val", "test")[i // 6 % 5]
        lines.append({"text": " ".join(words), "verb": verb, "tags": tags, "split": split})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return [
        f"datamodule.path={tmp_path / 'rows.jsonl'}",
        "datamodule.columns.split=split",
        "datamodule.columns.text=text",
    ]


def test_classification(mm, rows, bert):
    args = [*ARGS, *rows, "datamodule.columns.target=verb"]
    run = mm(
        "train", "experiment=bert_text_classification", *args, f"model.encoders.text.pretrained={bert}", "run=bert"
    )
    assert run.status == 0, run.err
    assert run.metrics["test/accuracy"] == 1
    assert run.metrics["test/f1/bites"] == run.metrics["test/recall/sees"] == 1  # of each class
    assert run.metrics["train/epochs"] == 5
    answer = package.load(run.folder / "model").predict({"text": "the old dog bites"})
    assert answer["target"]["prediction"] == "bites"
    mlp = mm("train", "experiment=mlp_text_classification", *args, "run=mlp")
    assert mlp.status == 0, mlp.err
    assert mlp.metrics["test/accuracy"] == 1
    assert mlp.metrics["train/epochs"] == 10


def test_entities(mm, rows, bert):
    args = [*ARGS, *rows, "datamodule.columns.target=tags", f"model.encoders.text.pretrained={bert}"]
    run = mm("train", "experiment=bert_ner", *args, "run=ner")
    assert run.status == 0, run.err
    assert run.metrics["test/f1/animal"] == run.metrics["test/f1"] > 0.8


def test_weights_have_to_be_named(mm, rows):
    run = mm("train", "experiment=bert_text_classification", *ARGS, *rows, "datamodule.columns.target=verb")
    assert run.status == 2
    assert "pretrained" in run.err
