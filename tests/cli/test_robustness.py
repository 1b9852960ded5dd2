"""`mm evaluate robustness=default`."""

import csv
import json
import shutil
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from conftest import COLUMNS, TINY
from omegaconf import OmegaConf
from PIL import Image

import conf
from mm.evaluation.robustness import RobustnessSettings, choose_curves
from mm.types import DataSpec, InputData

INPUTS = ("text", "vision", "audio")
NAMES = {
    "text": ["typos", "word_drop", "word_swap", "missing"],
    "vision": ["gaussian_noise", "gaussian_blur", "occlusion", "jpeg", "missing"],
    "audio": ["additive_noise", "dropout", "clipping", "reverberation", "missing"],
}


@pytest.fixture(scope="module")
def model(mm_once, tmp_path_factory, manifest):
    folder = tmp_path_factory.mktemp("trained")
    args = [
        *COLUMNS,
        *TINY,
        f"datamodule.path={manifest}",
        f"paths.outputs={folder}",
        "run=r",
        "trainer.max_epochs=20",
        "trainer.check_val_every_n_epoch=10",
    ]
    more = ["task.modality_dropout=0.5", "datamodule.batch_size=8"]
    mm_once(folder, "train", *args, *more)
    return folder / "r/model"


@pytest.fixture
def evaluate(mm, model, manifest):
    """On the 36 training rows: more of them than test rows, and the model knows them."""
    args = [f"checkpoint={model}", "datamodule=manifest", f"datamodule.path={manifest}", "split=train"]
    small = ["datamodule.columns.split=split", "datamodule.num_workers=0", "trainer.accelerator=cpu"]
    return lambda *more: mm("evaluate", *args, *small, "robustness=default", *more)


def lines(folder: Path) -> list[dict]:
    with (folder / "robustness.csv").open() as file:
        return list(csv.DictReader(file))


def curve(folder: Path, name: str, corruption: str, column: str = "value") -> list[float]:
    found = [x for x in lines(folder) if (x["input"], x["corruption"], x["metric"]) == (name, corruption, "accuracy")]
    return [float(line[column]) for line in found]


def test_every_input_and_corruption(evaluate, model, tmp_path):
    run = evaluate("robustness.severities=[0,0.5,1]")
    assert run.status == 0, run.err
    found = lines(run.folder)
    assert [(x["input"], x["corruption"], x["severity"]) for x in found] == [
        (name, corruption, severity) for name in INPUTS for corruption in NAMES[name] for severity in ("0", "0.5", "1")
    ]
    metrics = run.metrics
    for name in INPUTS:
        for corruption in NAMES[name]:
            clean, half, worst = curve(run.folder, name, corruption)
            assert clean == pytest.approx(metrics["test/accuracy"])
            area = (clean + half) / 4 + (half + worst) / 4
            assert metrics[f"robustness[{name}]/{corruption}/relative"] == pytest.approx(area / clean)
        # without it in any row, the model is what it was measured as without it
        others = "+".join(n for n in INPUTS if n != name)
        assert curve(run.folder, name, "missing")[2] == pytest.approx(metrics[f"test[{others}]/accuracy"])
        told = [metrics[f"robustness[{name}]/{corruption}/relative"] for corruption in NAMES[name][:-1]]
        assert metrics[f"robustness[{name}]/relative"] == pytest.approx(sum(told) / len(told))
    means = [metrics[f"robustness[{name}]/relative"] for name in INPUTS]
    assert metrics["robustness/relative"] == pytest.approx(sum(means) / 3)
    with Image.open(run.folder / "robustness.png") as picture:
        assert min(picture.size) > 300
    assert not list((tmp_path / ".cache").glob("robustness-*"))
    chance = ("typos", "gaussian_noise", "dropout", "missing")
    again = evaluate("robustness.severities=[0,0.5,1]", f"robustness.corruptions=[{','.join(chance)}]")
    assert lines(again.folder) == [line for line in found if line["corruption"] in chance]


def test_harm_grows_to_what_a_black_picture_leaves(evaluate):
    run = evaluate(
        "datamodule.inputs=[vision]",
        "robustness.corruptions=[occlusion]",
        "robustness.available.vision.occlusion.fraction=1",
    )
    assert run.status == 0, run.err
    values = curve(run.folder, "vision", "occlusion")
    assert values[0] > 0.9
    assert values[-1] == pytest.approx(1 / 3)  # one answer for all, and the classes are equally frequent
    assert all(later <= before + 0.1 for before, later in pairwise(values))
    assert {x["corruption"] for x in lines(run.folder)} == {"occlusion"}


def test_against_a_baseline_on_some_rows(evaluate, model, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(model, other)
    few = ["robustness.severities=[0,0.4,1]", "robustness.rows=20", "robustness.corruptions=[occlusion,missing]"]
    run = evaluate(*few, f"robustness.baseline={other}")
    assert run.status == 0, run.err
    assert "20 rows" in run.out
    # the same model under the same noise: no more robust than itself
    assert {v for n, v in run.metrics.items() if n.endswith("effective")} == {0.0}
    assert curve(run.folder, "vision", "occlusion") == curve(run.folder, "vision", "occlusion", "baseline")
    assert [round(20 * x) == pytest.approx(20 * x) for x in curve(run.folder, "audio", "missing")] == [True] * 3
    assert run.metrics["test/rows"] == 36


def test_a_picture_of_sound_is_corrupted_as_a_picture():
    config: Any = OmegaConf.load(Path(conf.__path__[0]) / "robustness/default.yaml")
    settings = RobustnessSettings(available=config.available)
    inputs = {"audio": InputData(modality="vision"), "text": InputData(modality="text")}
    spec = DataSpec(inputs=inputs, targets={})
    loaded: Any = SimpleNamespace(transforms=dict.fromkeys(inputs), model=SimpleNamespace(heads={}))
    found = choose_curves(settings, loaded, spec)
    assert [c.name for c in found if c.input == "audio"] == NAMES["vision"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["robustness.corruptions=[jpg]"],
            "robustness.corruptions: got 'jpg', wanted some of typos, .*; did you mean 'jpeg'?",
        ),
        (["robustness.corruptions=[typos]", "datamodule.inputs=[vision]"], "typos can't happen to 'vision' (vision)"),
        (
            ["robustness.corruptions=[missing]", "datamodule.inputs=[vision]"],
            "missing can't happen to 'vision' (vision)",
        ),
        (["robustness.severities=[0.1,0.5]"], "robustness.severities: got [0.1, 0.5], wanted 0 and others up to 1"),
        (["robustness.severities=0.5"], "robustness.severities: got 0.5, wanted a list, such as [0"),
        (["robustness.severities=[0,1,0.5]"], "robustness.severities: got [0, 1, 0.5]"),
        (["robustness.severities=[0,x]"], "robustness.severities: got [0, 'x']"),
        (["robustness.corruptions=jpeg"], "robustness.corruptions: got jpeg, wanted a list such as [jpeg]"),
        (["robustness.rows=0"], "robustness.rows: got 0, wanted a number of rows"),
        (["robustness.baseline=nowhere"], "no model directory at nowhere"),
        (
            ["robustness.baseline=ONE"],
            "ONE reads text (text), vision (vision), audio (vision), but the model text (text), .*audio (audio)",
        ),
        (["robustness.baseline=TWO"], "TWO does not predict 'target' with the model's classes"),
        (["robustness.available.vision.jpeg.quality=x"], "quality: got 'x', wanted a whole number"),
        (["robustness.available.text.typos.fraction=2"], "Typos: got fraction=2, wanted a number in 0..1"),
        (["robustness=all"], "robustness=all: there is no such option, only default"),
    ],
)
def test_mistakes(evaluate, model, tmp_path, args, said):
    for name in ("ONE", "TWO"):
        shutil.copytree(model, tmp_path / name)
    config = yaml.safe_load((tmp_path / "ONE/config.yaml").read_text())
    config["spec"]["inputs"]["audio"]["modality"] = "vision"
    (tmp_path / "ONE/config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (tmp_path / "TWO/labels.json").write_text(json.dumps({"target": ["blue", "green", "mauve"]}))
    run = evaluate(*args)
    assert run.status == 2
    for part in said.split(".*"):
        assert part in run.err
    assert "Traceback" not in run.err
    assert "Testing" not in run.err  # told before anything is measured


@pytest.mark.slow
def test_two_processes_measure_what_one_does(mm_process, model, manifest, tmp_path):
    args = [f"checkpoint={model}", "datamodule=manifest", f"datamodule.path={manifest}", "split=train"]
    args += ["datamodule.columns.split=split", "robustness=default", "robustness.severities=[0,0.5,1]"]
    one = mm_process("evaluate", *args, "run=one", "trainer.accelerator=cpu")
    two = mm_process("evaluate", *args, "run=two", "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    assert lines(tmp_path / "outputs/one") == lines(tmp_path / "outputs/two")
