"""A run that is stopped in any way and resumed ends as one that was left alone, to the last bit."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import COLUMNS, ROOT, TINY
from safetensors.torch import load_file

SMALL = [*COLUMNS, *TINY, "datamodule.batch_size=4", "trainer.log_every_n_steps=1", "trainer.max_epochs=3"]
EVERYTHING = [  # that has a state or is random
    "callbacks=[default,ema]",
    "callbacks.ema.decay=0.9",
    "datamodule/transforms/vision=affine",
    "datamodule/transforms/audio=speed",
    "task.modality_dropout=0.2",
    "trainer.val_check_interval=0.5",
    "trainer.accumulate_grad_batches=2",
    "datamodule.max_batch_length={text: 60}",
    "datamodule.num_buckets=2",
    "datamodule.balance_by=target",
]
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


def kill(step: int, how: str, sign: str = "+", **more) -> list[str]:
    given = {"_target_": "planted.Kill", "step": step, "how": how} | more
    return [f"+callbacks.kill.{key}={value}" for key, value in given.items()]


def curve(folder: Path) -> dict[tuple[int, str], str]:
    """Step, name -> the number as it was written, of all versions of a run's csv."""
    found = {}
    for file in sorted(folder.glob("csv/version_*/metrics.csv"), key=lambda f: int(f.parent.name.split("_")[1])):
        for line in csv.DictReader(file.read_text().splitlines()):
            logged = {name: x for name, x in line.items() if x and "per_second" not in name}
            found |= {(int(line["step"]), name): x for name, x in logged.items()}
    return found


def same_weights(one: Path, two: Path) -> bool:
    a, b = (load_file(folder / "model/model.safetensors") for folder in (one, two))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_stopped_and_resumed_equals_left_alone(mm, manifest, tmp_path):
    args = [*SMALL, *EVERYTHING, f"datamodule.path={manifest}"]
    whole = mm("train", *args, "run=whole")
    assert whole.status == 0, whole.err
    cut = mm("train", *args, "run=cut", *kill(2, "SIGTERM"))  # in the first epoch
    assert cut.status == 143
    assert "stopped by SIGTERM after step 2" in cut.err
    assert "go on with: mm train run=cut resume=true" in cut.err
    with pytest.raises(RuntimeError, match="planted"):  # at a step that has no checkpoint
        mm("train", "run=cut", "resume=true", *kill(7, "raise"))
    stop = mm("train", "run=cut", "resume=true", *kill(9, "SIGINT"))
    assert stop.status == 130
    done = mm("train", "run=cut", "resume=true", *kill(-1, "raise"))
    assert done.status == 0, done.err
    folders = tmp_path / "outputs/whole", tmp_path / "outputs/cut"
    assert len(curve(folders[0])) > 60
    assert curve(folders[0]) == curve(folders[1])
    assert same_weights(*folders)
    metrics = [json.loads((f / "metrics.json").read_text()) for f in folders]
    assert {n: x for n, x in metrics[0].items() if "duration_s" not in n} == {
        n: x for n, x in metrics[1].items() if "duration_s" not in n
    }


def kill_in_validation(number: int, batch: int, how: str = "SIGTERM") -> list[str]:
    given = {"_target_": "planted.KillInValidation", "number": number, "batch": batch, "how": how}
    return [f"+callbacks.kill.{key}={value}" for key, value in given.items()]


def plain(metrics: dict) -> dict:
    """Metrics without those of time."""
    return {n: x for n, x in metrics.items() if "second" not in n and not n.endswith("duration_s")}


def test_stopped_during_validation_the_checkpoint_is_saved_at_once(mm, manifest, tmp_path):
    """Within an epoch, at its end, and again in the validation that is repeated; the average of weights is in use."""
    args = [*SMALL, *EVERYTHING, "callbacks=[default,ema,early_stopping]", f"datamodule.path={manifest}"]
    args += ["callbacks.early_stopping.patience=2", "trainer.accumulate_grad_batches=1"]
    whole = mm("train", *args, "run=whole")
    assert whole.status == 0, whole.err
    cut = mm("train", *args, "run=cut", *kill_in_validation(1, 0))
    assert cut.status == 143
    steps = []
    for number, batch, how in ((1, 2, "SIGINT"), (1, 1, "SIGTERM"), (2, 2, "SIGTERM"), (3, 1, "SIGTERM")):
        (newest,) = sorted((tmp_path / "outputs/cut/checkpoints").glob("last-*.ckpt"))[-1:]
        found = torch.load(newest, weights_only=True)
        assert found["validation_due"]
        assert found["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]["current"]["completed"] < 3
        steps.append(found["global_step"])
        cut = mm("train", "run=cut", "resume=true", *kill_in_validation(number, batch, how))
        assert cut.status == {"SIGINT": 130, "SIGTERM": 143}[how], cut.err
        assert "go on with: mm train run=cut resume=true" in cut.err
    assert steps == sorted(steps)
    assert len(set(steps)) > 1
    done = mm("train", "run=cut", "resume=true", *kill_in_validation(0, 0))
    assert done.status == 0, done.err
    folders = tmp_path / "outputs/whole", tmp_path / "outputs/cut"
    assert curve(folders[0]) == curve(folders[1])
    assert same_weights(*folders)
    assert plain(done.metrics) == plain(whole.metrics)
    best = [sorted(p.name for p in f.glob("checkpoints/*.ckpt")) for f in folders]
    assert best[0] == best[1]


@pytest.mark.parametrize("steps", [9, 18])  # of which nine make an epoch
def test_stopped_during_the_validation_after_the_last_step(mm, manifest, tmp_path, steps):
    args = [*SMALL, f"datamodule.path={manifest}", f"trainer.max_steps={steps}"]
    whole = mm("train", *args, "run=whole")
    assert whole.status == 0, whole.err
    cut = mm("train", *args, "run=cut", *kill_in_validation(steps // 9, 1))
    assert cut.status == 143
    done = mm("train", "run=cut", "resume=true", *kill_in_validation(0, 0))
    assert done.status == 0, done.err
    assert curve(tmp_path / "outputs/whole") == curve(tmp_path / "outputs/cut")
    assert same_weights(tmp_path / "outputs/whole", tmp_path / "outputs/cut")
    assert plain(done.metrics) == plain(whole.metrics)


def test_from_the_end_of_an_epoch(mm, manifest, tmp_path):
    args = [*SMALL, f"datamodule.path={manifest}"]
    whole = mm("train", *args, "run=whole")
    assert whole.status == 0, whole.err
    with pytest.raises(RuntimeError, match="planted"):  # 9 steps make an epoch
        mm("train", *args, "run=cut", *kill(12, "raise"))
    done = mm("train", "run=cut", "resume=true", *kill(-1, "raise"))
    assert done.status == 0, done.err
    assert "going on from outputs/cut/checkpoints/last-000000009.ckpt" in done.out
    assert curve(tmp_path / "outputs/whole") == curve(tmp_path / "outputs/cut")
    assert same_weights(tmp_path / "outputs/whole", tmp_path / "outputs/cut")
    assert done.metrics["val/loss"] == whole.metrics["val/loss"]  # of the best epoch


@pytest.mark.filterwarnings("ignore:.ModelCheckpoint.monitor")  # not validated before the fifth step
@pytest.mark.parametrize("step", [5, 9])  # within an epoch and at its end
def test_more_steps_than_before(mm, manifest, tmp_path, step):
    args = [*SMALL, f"datamodule.path={manifest}", "trainer.max_epochs=-1", "task/scheduler=constant"]
    args += ["task.scheduler.warmup=0", "+callbacks.record._target_=planted.Record"]
    whole = mm("train", *args, "trainer.max_steps=24", "run=whole", "+callbacks.record.folder=whole")
    assert whole.status == 0, whole.err
    cut = mm("train", *args, f"trainer.max_steps={step}", "run=cut", "+callbacks.record.folder=cut")
    assert cut.status == 0, cut.err
    done = mm("train", "run=cut", "resume=true", "trainer.max_steps=24")
    assert done.status == 0, done.err
    assert (tmp_path / "whole/0.jsonl").read_text() == (tmp_path / "cut/0.jsonl").read_text()
    assert same_weights(tmp_path / "outputs/whole", tmp_path / "outputs/cut")
    for name in ("train/epochs", "train/steps", "val/loss"):
        assert done.metrics[name] == whole.metrics[name], name


def rates(folder: Path) -> list[float]:
    """Of every step, in all versions of a run's csv."""
    found = {step: float(x) for (step, name), x in curve(folder).items() if name == "lr"}
    return [found[step] for step in sorted(found)]


def test_the_rate_falls_to_the_end_with_batches_of_another_size(mm, manifest, tmp_path):
    args = [*SMALL, f"datamodule.path={manifest}", "trainer.max_epochs=4"]  # of 9 steps each
    cut = mm("train", *args, "run=cut", *kill(13, "SIGTERM"))
    assert cut.status == 143
    done = mm("train", "run=cut", "resume=true", "datamodule.batch_size=8", *kill(-1, "raise"))
    assert done.status == 0, done.err
    found = rates(tmp_path / "outputs/cut")[13:]  # of the second epoch 20 rows are left, then 36 each
    assert len(found) == 3 + 5 + 5
    assert found == sorted(found, reverse=True)
    assert found[-1] > 0
    assert found[-1] < 0.1 * found[0]


def test_the_order_of_rows_is_kept(mm, manifest):
    assert mm("train", *SMALL, f"datamodule.path={manifest}", "trainer.max_epochs=1", "run=a").status == 0
    for key, was, value in (("seed", 0, 1), ("datamodule.seed", 0, 1), ("datamodule.shuffle", True, False)):
        wrong = mm("train", "run=a", "resume=true", "trainer.max_epochs=2", f"{key}={value}")
        assert wrong.status == 2
        assert f"{key} was {was}, now it is {value}; a run keeps its model and its data" in wrong.err


def test_a_torn_checkpoint_is_recognised_and_the_one_before_it_used(mm, manifest, tmp_path):
    args = [*SMALL, f"datamodule.path={manifest}"]
    whole = mm("train", *args, "run=whole")
    assert whole.status == 0, whole.err
    mm("train", *args, "run=cut", "callbacks.periodic_checkpoint.steps=2", *kill(7, "SIGTERM"))
    kept = sorted((tmp_path / "outputs/cut/checkpoints").glob("last-*.ckpt"))
    assert [p.name for p in kept] == ["last-000000006.ckpt", "last-000000007.ckpt"]
    data = bytearray(kept[1].read_bytes())
    data[len(data) // 2] ^= 0x40  # one bit
    kept[1].write_bytes(data)
    done = mm("train", "run=cut", "resume=true", *kill(-1, "raise"))
    assert done.status == 0, done.err
    assert "last-000000007.ckpt is torn or damaged: the one before it is used" in done.err
    assert "going on from outputs/cut/checkpoints/last-000000006.ckpt" in done.out
    assert same_weights(tmp_path / "outputs/whole", tmp_path / "outputs/cut")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1.5 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", folder], capture_output=True)
    if made.returncode:
        pytest.skip("can't mount a small file system here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_one_message_and_leaves_a_checkpoint(mm, manifest, small_disk):
    args = [
        *SMALL,
        f"datamodule.path={manifest}",
        f"paths.outputs={small_disk}",
        "callbacks.periodic_checkpoint.keep=100",
    ]
    run = mm("train", *args, "run=full", "callbacks.periodic_checkpoint.steps=1")
    assert run.status == 2
    assert "mm: No space left on device: " in run.err
    assert "MB are free); make room and go on with: mm train run=full " in run.err
    assert "Traceback" not in run.err
    assert not list(small_disk.rglob("*.part"))
    for path in sorted((small_disk / "full/checkpoints").glob("last-*.ckpt"))[:-2]:
        path.unlink()
    again = ["run=full", "resume=true", f"paths.outputs={small_disk}", "callbacks.periodic_checkpoint.keep=1"]
    done = mm("train", *again, "callbacks.periodic_checkpoint.steps=null")
    assert done.status == 0, done.err


def lives(args: list[str], folder: Path, count: int, rng: random.Random) -> int:
    """Run `mm train` and kill it, all its processes, `count` times; then leave it alone. -> how often it was killed"""
    command = [str(Path(sys.executable).with_name("mm")), "train"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT / "tests")}
    killed = 0
    while True:
        begun = bool(list(folder.glob("outputs/cut/checkpoints/*.ckpt")))
        if not begun:
            subprocess.run(["rm", "-rf", str(folder / "outputs/cut")], check=True)
        given = ["run=cut", "resume=true"] if begun else [*args, "run=cut"]
        with (folder / f"{killed}.log").open("w") as log:
            run = subprocess.Popen(
                [*command, *given], cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True
            )
            while run.poll() is None:
                time.sleep(0.01)
                # from the first bar on, at a random moment: how long imports take says nothing
                if killed < count and "it/s" in (folder / f"{killed}.log").read_text():
                    time.sleep(rng.uniform(0, 0.7))
                    os.killpg(run.pid, signal.SIGKILL)
                    run.wait()
        if run.returncode == 0:
            return killed
        assert run.returncode == -signal.SIGKILL, (folder / f"{killed}.log").read_text()[-3000:]
        killed += 1


@pytest.mark.slow
def test_killed_twenty_times_ends_with_the_weights_of_one_left_alone(mm_process, manifest, tmp_path):
    args = [*SMALL, *EVERYTHING, f"datamodule.path={manifest}", "trainer.max_epochs=60", "datamodule.num_workers=2"]
    args += ["callbacks.periodic_checkpoint.steps=5", "trainer.accumulate_grad_batches=1"]
    args += ["callbacks.progress_bar.interactive=true"]  # `lives` waits for a bar
    whole = mm_process("train", *args, "run=whole")
    assert whole.returncode == 0, whole.stderr
    assert lives(args, tmp_path, 20, random.Random(0)) == 20
    folders = tmp_path / "outputs/whole", tmp_path / "outputs/cut"
    assert same_weights(*folders)
    logged = [{k: x for k, x in curve(f).items() if "loss" in k[1]} for f in folders]
    assert all(logged[0][key] == x for key, x in logged[1].items())  # a line that was not flushed is lost with its step


@pytest.mark.slow
def test_two_processes_resume_exactly(mm_process, manifest, tmp_path):
    args = [*SMALL, *EVERYTHING, *TWO, f"datamodule.path={manifest}", "callbacks.periodic_checkpoint.steps=1"]
    tests = {"PYTHONPATH": str(ROOT / "tests")}
    whole = mm_process("train", *args, "run=whole")
    assert whole.returncode == 0, whole.stderr
    cut = mm_process("train", *args, "run=cut", *kill(2, "SIGTERM", rank=1), **tests)  # one alone is told to stop
    assert cut.returncode == 143, cut.stderr
    assert "stopped by SIGTERM" in cut.stderr
    done = mm_process("train", "run=cut", "resume=true", *kill(-1, "raise"), **tests)
    assert done.returncode == 0, done.stderr
    folders = tmp_path / "outputs/whole", tmp_path / "outputs/cut"
    assert curve(folders[0]) == curve(folders[1])
    assert same_weights(*folders)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(TWO, ["trainer.devices=1"]), (["trainer.devices=1"], TWO)])
def test_another_number_of_processes_trains_every_row_of_the_epoch_once(mm_process, manifest, tmp_path, first, then):
    tests = {"PYTHONPATH": str(ROOT / "tests")}
    record = ["+callbacks.record._target_=planted.Record", f"+callbacks.record.folder={tmp_path / 'rows'}"]
    args = [
        *SMALL,
        *record,
        f"datamodule.path={manifest}",
        "trainer.max_epochs=2",
        "callbacks.periodic_checkpoint.steps=1",
    ]
    cut = mm_process("train", *args, *first, "run=cut", *kill(3, "SIGTERM"), **tests)
    assert cut.returncode == 143, cut.stderr
    then = [a for a in then if a != "trainer=ddp"] + ["trainer.strategy=ddp"]
    done = mm_process("train", "run=cut", "resume=true", *then, *kill(-1, "raise"), **tests)
    assert done.returncode == 0, done.stderr
    seen: dict[int, Counter] = {0: Counter(), 1: Counter()}
    for file in (tmp_path / "rows").iterdir():
        for line in file.read_text().splitlines():
            epoch, rows = json.loads(line)
            seen[epoch].update(row for row in rows if row >= 0)
    assert len(seen[0]) == 36
    assert set(seen[0].values()) == set(seen[1].values()) == {1}
    assert seen[0] == seen[1]
    assert list(seen[0]) != list(seen[1])  # every epoch has an order of its own
