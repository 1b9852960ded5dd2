"""Four heads of three kinds on three modalities: one model, one run, each one's own numbers."""

import csv
import math
from collections import defaultdict

import pytest

import mm as package

ARGS = ["experiment=digits_four_heads", "trainer.accelerator=cpu", "datamodule.split.rows=400", "model.embed_dim=32"]
ARGS += [
    "model.encoders.text.embed_dim=32",
    "model.encoders.text.num_layers=1",
    "model.encoders.vision.widths=[8,16,32]",
]
ARGS += ["model.encoders.audio.widths=[8,8,8]", "model.encoders.audio.embed_dim=16", "datamodule.batch_size=16"]
ARGS += ["task.optimizer.lr=5e-3", "trainer.max_epochs=3"]
MEASURED = {"digit": "accuracy", "parity": "accuracy", "sum": "mae", "tags": "f1"}


def test_each_learns_and_is_measured_under_its_name(mm):
    run = mm("train", *ARGS, "run=four")
    assert run.status == 0, run.err
    metrics = run.metrics
    for place in ("test", "test[audio]", "test[text+vision]"):
        assert all(math.isfinite(metrics[f"{place}/{head}/{name}"]) for head, name in MEASURED.items())
    losses = [metrics[f"test/{head}/loss"] for head in MEASURED]
    assert metrics["test/loss"] == pytest.approx(sum(losses), rel=1e-4)
    curves = defaultdict(list)
    with next(run.folder.glob("csv/**/metrics.csv")).open() as file:
        for line in csv.DictReader(file):
            for head in MEASURED:
                if line.get(f"val/{head}/loss"):
                    curves[head].append(float(line[f"val/{head}/loss"]))
    assert {head: len(curve) for head, curve in curves.items()} == dict.fromkeys(MEASURED, 3)
    assert all(curve[-1] < curve[0] for curve in curves.values()), curves
    assert metrics["test/digit/accuracy"] > 0.5  # chance: 0.1
    answer = package.load(run.folder / "model").predict({"text": "it says seven"})
    assert list(answer) == list(MEASURED)
    assert answer["digit"]["prediction"] in "0123456789"
    assert answer["parity"]["prediction"] in ("even", "odd")
    assert isinstance(answer["sum"]["prediction"], float)
    assert [one["type"] for one in answer["tags"]["prediction"]] == ["digit"] * len(answer["tags"]["prediction"])

    targets = f"+datamodule.targets={{{', '.join(f'{head}: {head}' for head in MEASURED)}}}"
    noisy = ["robustness=default", "robustness.corruptions=[missing,occlusion]", "robustness.severities=[0,1]"]
    again = mm(
        "evaluate", f"checkpoint={run.folder}/model", "datamodule=digits", "datamodule.sound=another", targets, *noisy
    )
    assert again.status == 0, again.err
    assert "'text' is not taken away: 'tags' predicts something of its tokens" in again.out
    with (again.folder / "robustness.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["metric"] for line in lines} == {f"{head}/{name}" for head, name in MEASURED.items()}
    assert {(line["input"], line["corruption"]) for line in lines} == {
        ("vision", "occlusion"),
        ("vision", "missing"),
        ("audio", "missing"),
    }


def test_a_head_of_words_needs_their_text(mm):
    for anchor, said in (
        ("null", "set model.fusion.anchor to the input whose tokens"),
        ("audio", "name an input of text"),
    ):
        run = mm("train", *ARGS, f"model.fusion.anchor={anchor}", f"run={anchor}")
        assert run.status == 2
        assert said in run.err
