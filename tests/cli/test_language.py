"""Texts without labels first: tokens hidden or to come, with and without pictures beside; then a few labels."""

import random

import pytest

ARGS = ["datamodule=text", "trainer.accelerator=cpu", "datamodule.num_workers=0", "task.optimizer.lr=0.005"]
SMALL = ["model.embed_dim=32", "model.encoders.text.embed_dim=32", "model.encoders.text.num_layers=1"]
SMALL += ["model.encoders.text.dropout=0"]
WORDS = ["model.encoders.text.tokenizer=wordpiece", "model.encoders.text.vocab_size=80"]


@pytest.fixture
def texts(tmp_path):
    """A colour says what animal follows."""
    draw = random.Random(0)
    pairs = [("red", "fox"), ("green", "frog"), ("blue", "bird"), ("grey", "wolf")]
    lines = [" and ".join(f"a {a} {b}" for a, b in draw.choices(pairs, k=3)) for _ in range(240)]
    (tmp_path / "lines.txt").write_text("\n\n".join(lines))
    folder = tmp_path / "documents"
    folder.mkdir()
    for i, line in enumerate(lines[:40]):
        (folder / f"{i}.txt").write_text(line)
    rows = [f"{line},{'fox' if 'fox' in line else 'none'}" for line in lines]
    (tmp_path / "rows.csv").write_text("text,target\n" + "\n".join(rows))
    return tmp_path


@pytest.mark.parametrize("task", ["masked_lm", "causal_lm"])
def test_learns_and_is_a_beginning(mm, texts, task):
    how = [*ARGS, *SMALL, *WORDS, f"task={task}", f"datamodule.path={texts / 'lines.txt'}"]
    causal = f"model.encoders.text.causal={str(task == 'causal_lm').lower()}"
    how += [causal]
    if task == "masked_lm":
        how += ["task.objectives.masked_lm.whole_words=true"]
    first = mm("train", *how, "run=one", "trainer.max_epochs=1")
    assert first.status == 0, first.err
    run = mm("train", *how, "run=pre", "trainer.max_epochs=25", "trainer.check_val_every_n_epoch=5")
    assert run.metrics["test/loss"] < 0.6 * first.metrics["test/loss"]
    own = [*ARGS, *SMALL, f"datamodule.path={texts / 'rows.csv'}", f"model.init_from={run.folder}/model", "run=few"]
    own += [f"model.encoders.text.tokenizer={run.folder}/model/tokenizer/text", causal]
    few = mm("train", *own, "trainer.max_epochs=3")
    assert few.status == 0, few.err
    assert "encoders.text (" in few.out
    assert few.metrics["test/accuracy"] > 0.8


def test_a_folder_of_documents_by_bytes(mm, texts):
    run = mm("train", *ARGS, *SMALL, "task=masked_lm", f"datamodule.path={texts}/documents", "trainer.max_epochs=1")
    assert run.status == 0, run.err
    assert "documents: train 32, val 4, test 4 rows" in run.out


def test_several_at_once(mm):
    """The embedded digits: words hidden and pictures hidden, and both brought together, each with its own weight."""
    several = ["task=pretraining", "+task/objectives@task.objectives.words=masked_lm"]
    several += ["+task/objectives@task.objectives.blocks=masked_patch", "task.objectives.blocks.patch=2"]
    several += ["+task/objectives@task.objectives.pair=contrastive", "task.objectives.pair.weight=0.25"]
    several += ["task.objectives.words.weight=0.5", "datamodule.inputs=[text,vision]", "trainer.max_epochs=1"]
    tiny = ["model.encoders.vision.widths=[8,16]", "trainer.accelerator=cpu", "datamodule.num_workers=0"]
    run = mm("train", *several, *tiny)
    assert run.status == 0, run.err
    words, blocks, pair = (run.metrics[f"test/{name}/loss"] for name in ("words", "blocks", "pair"))
    assert run.metrics["test/loss"] == pytest.approx(0.5 * words + blocks + 0.25 * pair)
    both = [run.metrics[f"test[{way}]/recall@10"] for way in ("text->vision", "vision->text")]
    assert run.metrics["test/pair/recall@10"] == pytest.approx(sum(both) / 2)
    again = mm("evaluate", f"checkpoint={run.folder}/model", "datamodule=digits", "trainer.accelerator=cpu")
    assert again.status == 0, again.err
    assert [again.metrics[f"test[{way}]/recall@10"] for way in ("text->vision", "vision->text")] == pytest.approx(both)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["task=pretraining"], "task.objectives: got none; add one, as +task/objectives@"),
        (["task=masked_patch"], "masked_patch learns of vision, but there is only text"),
        (
            ["task=causal_lm"],
            "causal_lm tells the next token, but the encoder of 'text' sees those to come",
        ),
        (
            ["task=masked_lm", "model/encoders/text=hashed_ngrams"],
            "TextHashedNgrams of 'text' has no table of them",
        ),
        (["task=masked_lm", "task.objectives.masked_lm.ratio=15"], "got ratio=15, wanted one in 0..1"),
        (["task=masked_langage"], "masked_lm"),
        (["task=masked_lm", "task.freeze=['^encoders']"], "frozen"),
    ],
)
def test_mistakes(mm, texts, args, said):
    own = ["datamodule=text", f"datamodule.path={texts / 'lines.txt'}", "trainer.accelerator=cpu"]
    run = mm("train", *own, *args, "trainer.max_epochs=1")
    assert run.status == 2
    assert said in run.err
