"""Sounds and what they say, from a table to a transcript."""

import csv

import numpy as np
import pytest
import soundfile

import mm as package

TONES = {"a": 400, "b": 1100, "c": 2500}  # Hz
ARGS = ["datamodule=audio", "model/heads=ctc", "model/fusion=sum", "monitor.metric=val/wer", "datamodule.num_workers=0"]
ARGS += ["datamodule.columns.audio=sound", "datamodule.columns.target=said", "trainer.accelerator=cpu"]
ARGS += ["model.encoders.audio.embed_dim=32", "model.embed_dim=32", "model.encoders.audio.widths=[8,16,16]"]
ARGS += ["datamodule.batch_size=8", "task.optimizer.lr=0.01"]
ANCHOR = "model.fusion.anchor=audio"


@pytest.fixture
def rows(tmp_path):
    """One or two words of tones; a blank is silence."""
    rng = np.random.default_rng(0)
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        write = csv.writer(file)
        write.writerow(["sound", "said", "split"])
        for i in range(72):
            said = " ".join("".join(rng.choice(list(TONES), rng.integers(1, 4))) for _ in range(1 + i % 2))
            parts = []
            for letter in said:
                time = np.arange(1200) / 8000
                tone = np.sin(2 * np.pi * TONES[letter] * time) * np.hanning(1200) if letter != " " else np.zeros(1200)
                parts.append(tone)
            wave = np.concatenate(parts) * 0.5 + rng.normal(0, 0.01, 1200 * len(parts))
            soundfile.write(tmp_path / f"{i}.wav", wave.astype(np.float32), 8000)
            write.writerow([f"{i}.wav", said, ("train", "train", "train", "val", "test", "train")[i // 2 % 6]])
    return tmp_path / "rows.csv"


def test_learns_tells_and_serves(mm, rows):
    run = mm(
        "train",
        *ARGS,
        ANCHOR,
        f"datamodule.path={rows}",
        "trainer.max_epochs=40",
        "trainer.check_val_every_n_epoch=10",
        "run=ctc",
    )
    assert run.status == 0, run.err
    assert run.metrics["test/cer"] < 0.1
    assert run.metrics["test/wer"] < 0.3
    with rows.open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["split"] == "train"]
    answers = package.load(run.folder / "model").predict([{"audio": str(rows.parent / x["sound"])} for x in lines])
    right = [answer["target"]["prediction"] == line["said"] for answer, line in zip(answers, lines)]
    assert sum(right) > 0.8 * len(right)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "predicts something of each token: set model.fusion.anchor"),
        ([ANCHOR, "model.encoders.audio.strides=[4,4,4]"], "fewer tokens of 'audio' than CTC needs"),
        ([ANCHOR, "datamodule.transforms.audio.max_length=2000"], "column 'said': is longer than what is read at once"),
    ],
)
def test_mistakes(mm, rows, args, said):
    run = mm("train", *ARGS, *args, f"datamodule.path={rows}", "trainer.max_epochs=1")
    assert run.status == 2
    assert said in run.err
