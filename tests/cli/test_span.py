"""Answers out of a text, from a table and from SQuAD's file to what a person reads."""

import json

import pytest

import mm as package

WHO, WHERE = ("Ann", "Bob Lee", "Zoë"), ("Rome", "New York", "Ulm")
ARGS = ["datamodule=text", "model/heads=span", "model/fusion=sum", "model.fusion.anchor=text", "monitor.metric=val/f1"]
ARGS += ["model/encoders/text=recurrent", "model.embed_dim=48", "datamodule.num_workers=0", "datamodule.batch_size=16"]
ARGS += ["trainer.accelerator=cpu", "task.optimizer.lr=0.01", "datamodule.columns.text=[question,context]"]
ARGS += ["datamodule.columns.target=answers", "datamodule.columns.group=title"]


@pytest.fixture
def squad(tmp_path):
    """Who, and where, of short passages; nobody says when."""
    documents = []
    for i in range(30):
        who, where = WHO[i % 3], WHERE[i // 3 % 3]
        context = f"{who} is in {where} now."
        asked = {"who": [(who, 0)], "where": [(where, context.index(where))], "when": []}
        qas = [
            {
                "id": f"{i}-{word}",
                "question": f"{word}?",
                "is_impossible": not answers,
                "answers": [{"text": text, "answer_start": start} for text, start in answers],
            }
            for word, answers in asked.items()
        ]
        documents.append({"title": f"t{i}", "paragraphs": [{"context": context, "qas": qas}]})
    (tmp_path / "a.json").write_text(json.dumps({"version": "2.0", "data": documents}))
    return tmp_path / "a.json"


def test_learns_tells_and_serves(mm, squad):
    args = [*ARGS, f"datamodule.path={squad}", "trainer.max_epochs=30", "trainer.check_val_every_n_epoch=10"]
    run = mm("train", *args, "run=span")
    assert run.status == 0, run.err
    assert run.metrics["test/f1"] > 0.8
    text = "Bob Lee is in New York now."
    (who, when) = package.load(run.folder / "model").predict([{"text": [q, text]} for q in ("who?", "when?")])
    assert who["target"]["prediction"] == text[who["target"]["start"] : who["target"]["end"]] == "Bob Lee"
    assert when["target"]["prediction"] == ""
    measured = mm("evaluate", "checkpoint=outputs/span/model", "datamodule=text", f"datamodule.path={squad}")
    assert measured.status == 0, measured.err
    assert measured.metrics["test/f1"] > 0.8
    windows = [f"datamodule.transforms.text.{x}" for x in ("max_length=20", "overflow=window", "window_overlap=0.6")]
    cut = mm("train", *args, *windows, "run=windows")
    assert cut.status == 0, cut.err
    assert cut.metrics["test/f1"] > 0.6


def test_a_table_of_questions(mm, tmp_path):
    rows = [
        {"question": "who?", "context": f"{who} is here.", "answers": who, "title": str(i)}
        for i, who in enumerate(WHO * 10)
    ]
    rows[4]["answers"] = "Nobody"
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = [*ARGS, f"datamodule.path={tmp_path}/a.jsonl", "trainer.max_epochs=1"]
    wrong = mm("train", *args)
    assert wrong.status == 2
    assert "row 4 (id '4'), column 'answers': the text has no 'Nobody'" in wrong.err
    lacks = mm("train", *args, "datamodule.columns.text=[question,contxt]")
    assert lacks.status == 2
    assert "no column 'contxt'" in lacks.err and "did you mean 'context'" in lacks.err
    three = mm("train", *args, "datamodule.columns.text=[question,context,title]")
    assert "wanted a column, or two for a pair of texts" in three.err
    fine = mm("train", *args, "datamodule.on_error=drop", "run=fine")
    assert fine.status == 0, fine.err
    assert fine.metrics["data/faulty_rows"] == 1
    probes = mm("train", *args, "task.unimodal_probes=true", "run=probes")
    assert "predicts something of each token of 'text'" in probes.err


BERT = "{model_type: bert, vocab_size: 260, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2"
BERT += ", intermediate_size: 32, max_position_embeddings: 64}"


@pytest.mark.parametrize("head", ["span", "token_classification"])
def test_what_is_frozen_still_tells_where_its_words_are(mm, squad, tmp_path, head):
    """Features that were computed before come without the text that they are of."""
    args = [*ARGS, f"datamodule.path={squad}", "model/encoders/text=huggingface", f"model.encoders.text.config={BERT}"]
    if head == "token_classification":
        lines = [
            {"text": f"{who} is in {where}", "tags": "B-a " + "O " * (who + where).count(" ") + "O O O"}
            for who, where in zip(WHO * 8, WHERE * 8)
        ]
        (tmp_path / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        args = ["model/heads=token_classification" if a == "model/heads=span" else a for a in args]
        args += [
            f"datamodule.path={tmp_path}/t.jsonl",
            "datamodule.columns.text=text",
            "datamodule.columns.target=tags",
            "datamodule.columns.group=null",
        ]
    run = mm("train", *args, "peft=linear_probe", "trainer.max_epochs=1", "run=frozen")
    assert run.status == 0, run.err
    assert "test/f1" in run.metrics


def test_corrupted_words_are_no_words_to_tell_of(mm, squad):
    run = mm("train", *ARGS, f"datamodule.path={squad}", "trainer.max_epochs=1", "run=a")
    assert run.status == 0, run.err
    given = ["checkpoint=outputs/a/model", "datamodule=text", f"datamodule.path={squad}", "robustness=default"]
    refused = mm("evaluate", *given)
    assert refused.status == 2
    assert "leave them out with robustness.corruptions" in refused.err


def test_shards_refuse_pairs(mm, squad):
    run = mm("shard", "datamodule=text", f"datamodule.path={squad}", *ARGS[-3:-1], "out=shards")
    assert run.status == 2
    assert "is a pair of texts, which can't be written to shards" in run.err


def test_a_file_that_is_none(mm, tmp_path):
    (tmp_path / "a.json").write_text('{"data": [{"paragraphs": [{"context": "x"}]}]}')
    run = mm("train", *ARGS, f"datamodule.path={tmp_path}/a.json")
    assert run.status == 2
    assert "KeyError 'qas'; wanted a file as SQuAD has it" in run.err
