"""What the encoders of any model are good for: a few shots of each class, linear probes, prompts."""

import csv

import pytest
import torch
import torch.nn.functional as F
from conftest import COLUMNS, TINY
from sklearn.neighbors import NearestCentroid

import mm as package

COLOURS = ("blue", "green", "red")


@pytest.fixture
def trained(mm, manifest):
    """A model with a head of sizes, which knows nothing of colours."""
    args = [*COLUMNS[:-1], *TINY, "datamodule.columns.target=size", f"datamodule.path={manifest}", "run=sizes"]
    run = mm("train", *args, "trainer.max_epochs=1")
    assert run.status == 0, run.err
    given = ["evaluate", "checkpoint=outputs/sizes/model", "datamodule=manifest", f"datamodule.path={manifest}"]
    return run.folder / "model", [*given, "datamodule.columns.split=split"]


def encoded(folder, manifest, name, column, split):
    """Unit vectors of an input as its encoder alone gives them, and the colours."""
    loaded = package.load(folder)
    with manifest.open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["split"] == split]
    vectors = []
    for line in lines:
        raw = line[column] if name == "text" else manifest.parent / line[column]
        batch = loaded.read([{name: raw}])
        x = loaded.transforms[name].finish(batch.inputs[name])
        with torch.no_grad():
            vectors.append(F.normalize(loaded.model.encoders[name](x, batch.masks[name]).pooled, dim=-1)[0])
    return torch.stack(vectors).double().numpy(), [COLOURS.index(line["colour"]) for line in lines]


def test_encoders_of_a_model_with_other_heads(mm, trained, manifest):
    folder, args = trained
    asked = [*args, "datamodule.columns.target=colour", "few_shot.target=target", "few_shot.shots=[1,1000]"]
    run = mm(
        *asked,
        "few_shot.num_trials=3",
        "linear_probe=target",
        "zero_shot.target=target",
        "zero_shot.templates=['it is {}']",
    )
    assert run.status == 0, run.err
    found = run.metrics
    assert "of classes with fewer training rows than shots all are taken: blue 12, green 12, red 12" in run.out
    for name, column in (("text", "words"), ("vision", "photo"), ("audio", "sound")):
        x, label = encoded(folder, manifest, name, column, "train")
        unseen, truth = encoded(folder, manifest, name, column, "test")
        wanted = NearestCentroid().fit(x, label).score(unseen, truth)
        assert found[f"test[{name}]/few_shot/prototype@1000"] == pytest.approx(wanted)
        assert found[f"test[{name}]/few_shot/prototype@1000_std"] == 0  # every draw takes all
        assert 0 <= found[f"test[{name}]/few_shot/logistic@1"] <= 1
    assert found["test[vision]/linear_probe_accuracy"] > 0.6
    assert "test/few_shot/prototype@1" in found  # of all inputs side by side
    texts = [encoded_text(folder, f"it is {colour}") for colour in COLOURS]
    unseen, truth = encoded(folder, manifest, "text", "words", "test")
    wanted = ((torch.tensor(unseen) @ torch.stack(texts).T).argmax(1) == torch.tensor(truth)).double().mean()
    assert found["test[text]/zero_shot_accuracy"] == pytest.approx(float(wanted))
    assert "test[vision]/zero_shot_accuracy" not in found  # nothing has aligned it with texts
    assert "test/accuracy" not in found
    again, other = mm(*asked, "few_shot.num_trials=3"), mm(*asked, "few_shot.num_trials=3", "seed=1")
    shots = [{n: x for n, x in one.metrics.items() if "few_shot" in n} for one in (run, again, other)]
    assert shots[0] == shots[1] != shots[2]


def encoded_text(folder, text):
    loaded = package.load(folder)
    batch = loaded.read([{"text": text}])
    with torch.no_grad():
        pooled = loaded.model.encoders["text"](batch.inputs["text"], batch.masks["text"]).pooled
    return F.normalize(pooled, dim=-1)[0].double()


def test_mistakes(mm, trained):
    for args, said in (
        (["few_shot.target=colour"], "no column for the target 'colour'"),
        (["few_shot.target=target", "few_shot.shots=[0]"], "few_shot.shots: got [0], wanted whole numbers above 0"),
        (
            ["few_shot.target=target", "few_shot.num_trials=0"],
            "few_shot.num_trials: got 0, wanted whole numbers above 0",
        ),
        (["few_shot.target=target", "robustness=default"], "robustness measures heads"),
        (["few_shot.shot=3"], "few_shot.shot"),
    ):
        run = mm(*trained[1], "datamodule.columns.target=colour", *args)
        assert run.status == 2, run.out
        assert said in run.err
        assert "Traceback" not in run.err
