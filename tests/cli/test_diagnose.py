"""`mm diagnose` finds the planted fault."""

import json
import sys

import pytest
import torch
from conftest import COLUMNS, ROOT, TINY
from safetensors.torch import load_file

from mm.assembly.diagnosis import read_tensors

SMALL = [*COLUMNS, *TINY, "trainer.max_epochs=1", "datamodule.batch_size=4", "seed=1"]
BLOW = ["+callbacks.blow._target_=planted.Blow", "+callbacks.blow.batch=2", "+callbacks.blow.name=vision"]


def test_a_loss_that_is_not_finite_stops_and_is_replayed(mm, manifest):
    run = mm("train", *SMALL, *BLOW, f"datamodule.path={manifest}", "run=bad")
    assert run.status == 2
    assert "Traceback" not in run.err
    assert "the loss of step 2 is not finite; the rows of its batch: r" in run.err
    assert "first in model.encoders.vision." in run.err
    assert "mm diagnose run=outputs/bad" in run.err
    said = mm("diagnose", "run=bad")
    assert said.status == 0, said.err
    assert "first in model.encoders.vision." in said.out
    first = run.err.split("the rows of its batch: ")[1].split(",")[0]
    assert f"(id '{first}')" in said.out.split("not finite when computed alone: ")[1].splitlines()[0]
    assert "holds no checkpoint" in said.out


@pytest.mark.filterwarnings("ignore:the loss of step")
def test_skipped_steps_are_counted_and_inputs_weighed(mm, manifest):
    skip = ["task.nonfinite.policy=skip", "trainer.max_epochs=2"]
    run = mm("train", *SMALL, *BLOW, *skip, f"datamodule.path={manifest}", "run=skips")
    assert run.status == 0, run.err
    assert run.metrics["train/skipped_steps"] == 2
    said = mm("diagnose", "run=skips", "rows=8")
    assert said.status == 0, said.err
    assert said.out.count("the loss was not finite") == 2
    for name in ("text", "vision", "audio"):
        assert f"│ {name}" in said.out


MASKED = ["task=masked_patch", "datamodule.inputs=[vision]"]


@pytest.mark.parametrize("task", [["task=contrastive"], MASKED], ids=["contrastive", "masked_patch"])
def test_a_run_without_heads_is_replayed(mm, manifest, task):
    """Its losses are the task's, not those of heads."""
    columns = [a for a in SMALL if "target" not in a]
    if task is MASKED:
        columns = [a for a in columns if "text" not in a and "audio" not in a]
    run = mm("train", *columns, *task, *BLOW, f"datamodule.path={manifest}", "run=bad")
    assert run.status == 2 and "is not finite" in run.err
    said = mm("diagnose", "run=bad")
    assert said.status == 0, said.err
    assert "first in model.encoders.vision." in said.out
    assert "not finite when computed alone: " in said.out and "no row" not in said.out
    assert "the model predicts nothing" in said.out


def test_mistakes(mm):
    assert mm("diagnose").status == 2
    assert "there is no run in outputs/none" in mm("diagnose", "run=none").err
    assert "usage" in mm("diagnose", "rum=none").err


TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "task.nonfinite.policy=skip"]


@pytest.mark.slow
def test_one_of_two_processes_has_a_batch_that_both_skip(mm_process, manifest, tmp_path):
    args = [
        *SMALL,
        f"datamodule.path={manifest}",
        "trainer.max_epochs=-1",
        "trainer.max_steps=1",
        "task/scheduler=constant",
    ]
    blow = [*BLOW, "callbacks.blow.batch=0"]
    runs = {
        "one": ["task.nonfinite.policy=skip"],
        "two": [*TWO, "+callbacks.blow.rank=1"],
        "accumulated": [*TWO, "+callbacks.blow.rank=1", "trainer.accumulate_grad_batches=2"],
    }
    weights = {}
    for name, more in runs.items():
        run = mm_process("train", *args, *blow, *more, f"run={name}", PYTHONPATH=str(ROOT / "tests"))
        assert run.returncode == 0, run.stderr
        folder = tmp_path / "outputs" / name
        assert json.loads((folder / "metrics.json").read_text())["train/skipped_steps"] == 1
        assert run.stderr.count("the loss of step 0 is not finite") == 1
        kept = [file.name for file in (folder / "nonfinite").iterdir()]
        assert kept == ["step-000000000.pt" if name == "one" else "step-000000000-process-1.pt"]
        weights[name] = load_file(folder / "model/model.safetensors")
    same = {n: all(torch.equal(x, weights["one"][k]) for k, x in w.items()) for n, w in weights.items()}
    assert same == {"one": True, "two": True, "accumulated": False}  # the other micro-batch is learnt from


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_gradient_of_one_of_two_processes_is_kept(mm_process, manifest, tmp_path, accumulate):
    rank = {"PYTHONPATH": str(ROOT / "tests")}
    args = [*SMALL, *TWO, f"datamodule.path={manifest}", f"trainer.accumulate_grad_batches={accumulate}", "run=a"]
    args += [f"+callbacks.burst.{key}={x}" for key, x in {"_target_": "planted.Burst", "batch": 0, "rank": 1}.items()]
    args += ["+callbacks.record._target_=planted.Record", f"+callbacks.record.folder={tmp_path / 'rows'}"]
    run = mm_process("train", *args, **rank)
    assert run.returncode == 0, run.stderr
    seen = [json.loads((tmp_path / f"rows/{i}.jsonl").read_text().splitlines()[0])[1] for i in (0, 1)]
    told = [", ".join(f"r{row}" for row in rows) + f" (process {i})" for i, rows in enumerate(seen)]
    wanted = told[1:] if accumulate > 1 else told  # processes add up the gradients of a window's last batch
    assert f"the gradient of step 0 is not finite; the rows of its batch: {', '.join(wanted)};" in run.stderr
    kept = sorted(file.name for file in (tmp_path / "outputs/a/nonfinite").iterdir())
    assert kept == [f"step-000000000-process-{i}.pt" for i in ((1,) if accumulate > 1 else (0, 1))]


@pytest.mark.parametrize("part", ["datamodule", "model", "peft", "task"])
@pytest.mark.parametrize(
    "target", ["pathlib.Path.touch", "evil.run", "mm.cli.main", "torch.load", "mm.checkpoint.fetch"]
)
def test_a_run_of_a_stranger_runs_nothing(mm, tmp_path, part, target):
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')", encoding="utf-8")
    folder = tmp_path / "outputs/r"
    folder.mkdir(parents=True)
    config = {"datamodule": {}, "model": {}, "peft": None, "task": {}} | {
        part: {"config": {"_target_": target, "self": "x"}}
    }
    (folder / "config.yaml").write_text(json.dumps(config), encoding="utf-8")
    said = mm("diagnose", "run=r")
    assert said.status == 2
    assert f"names {target}, which is outside" in said.err
    assert "evil" not in sys.modules


class Runs:
    """A pickle of it runs a function when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return self.path.touch, ()


@pytest.mark.parametrize("kept", ["torn", "pickle", [1]])
def test_a_damaged_batch_is_one_message(tmp_path, kept):
    file = tmp_path / "1.pt"
    torch.save({"weights": Runs(tmp_path / "ran")} if kept == "pickle" else kept, file)
    if kept == "torn":
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"1\.pt: (is damaged, or not of mm|got a list)"):
        read_tensors(file)
    assert not (tmp_path / "ran").exists()
