"""Signals at random moments of whole runs: what was trained is kept, and resumes to the weights of a run left alone.

MM_SIGNALS: how many signals `test_signals_at_random_moments` sends, 12 where it is not set.
"""

import csv
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

import mm.assembly.fitting  # noqa: F401  # a copy of this process need not import it
from mm.cli import main

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
TWO = ["trainer=ddp", "trainer.devices=2"]


class Trial(NamedTuple):
    """One signal to one run."""

    how: str
    group: bool  # whether the whole process group gets it
    workers: int
    processes: int
    training: bool  # whether it is sent after the first step
    moment: float  # as a part of the time that a run takes up to the first step, or from there to its end


def write_texts(folder: Path, train: int = 240, val: int = 400) -> None:
    """rows.csv: texts of two classes, with a split of many rows for validation."""
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "split"])
        for row in range(train + val + 20):
            split = "train" if row < train else "val" if row < train + val else "test"
            writer.writerow([f"{['red', 'blue'][row % 2]} thing number {row}", ["warm", "cold"][row % 2], split])


def arguments(workers: int, processes: int) -> list[str]:
    """Of a run that takes a second or two, half of it for validation."""
    return [
        "datamodule=manifest",
        "datamodule.path=rows.csv",
        "datamodule.columns.text=text",
        "datamodule.columns.target=label",
        "datamodule.columns.split=split",
        f"datamodule.batch_size={8 // processes}",
        f"datamodule.num_workers={workers}",
        "model/encoders/text=hashed_ngrams",
        "model.embed_dim=16",
        "trainer.accelerator=cpu",
        "trainer.max_epochs=3",
        "trainer.val_check_interval=0.5",
        "+callbacks.record._target_=planted.Record",
        *(TWO if processes == 2 else []),
    ]


def start(folder: Path, name: str, args: list[str]) -> subprocess.Popen:
    """`mm train` in a session of its own, with its output in NAME.log."""
    command = [str(Path(sys.executable).with_name("mm")), "train", *args, f"run={name}"]
    own = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    own["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=folder, env=os.environ | own, stdout=log, stderr=log, start_new_session=True
        )


class Forked(multiprocessing.get_context("fork").Process):  # type: ignore[name-defined,misc]
    """As `start`, but a copy of this process, which has imported everything: that takes a run most of its time."""

    def __init__(self, folder: Path, name: str, args: list[str]):
        super().__init__()
        self.where, self.label, self.args = folder, name, args
        super().start()

    def run(self) -> None:
        os.setsid()
        with (self.where / f"{self.label}.log").open("ab") as log:
            for descriptor in (1, 2):
                os.dup2(log.fileno(), descriptor)
        sys.stdout, sys.stderr = (open(descriptor, "w", encoding="utf-8", closefd=False) for descriptor in (1, 2))  # noqa: SIM115
        os.chdir(self.where)
        os.environ |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        warnings.resetwarnings()  # pytest has made errors of them
        sys.argv = ["mm", "train", *self.args, f"run={self.label}"]
        main()

    def poll(self) -> int | None:
        return self.exitcode

    def wait(self, timeout: float) -> int:
        self.join(timeout)
        assert self.exitcode is not None, f"{self.label} does not end"
        return self.exitcode


def left_over(session: int) -> list[int]:
    """Processes of a session that are still at work."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = stat.read_text().rsplit(")", 1)[1].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(of) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


def end(process: subprocess.Popen | Forked, seconds: float = 300) -> int:
    """-> the exit status as a shell tells it, once every process of the run is gone."""
    status = process.wait(timeout=seconds)
    assert process.pid is not None
    deadline = time.monotonic() + 20
    while left_over(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    orphans = left_over(process.pid)
    for orphan in orphans:
        os.kill(orphan, signal.SIGKILL)
    assert not orphans, f"processes were left over: {orphans}"
    return 128 - status if status < 0 else status


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / f"outputs/{name}/model/model.safetensors")


def steps(folder: Path, name: str) -> int:
    """How many steps a run has finished, by what the planted callback has written."""
    return sum(len(file.read_text().splitlines()) for file in (folder / f"rows-{name}").glob("0.jsonl"))


class Times(NamedTuple):
    """Seconds of a run that is left alone."""

    before: float  # up to its first step
    after: float


def measure(folder: Path, name: str, processes: int) -> Times:
    """Run `mm train` to its end. What it takes up to its first step is a process's that imports everything."""
    begun = time.monotonic()
    process = start(folder, name, [*arguments(0, processes), f"+callbacks.record.folder={folder / f'rows-{name}'}"])
    wait_for_step(folder, name, process)
    first = time.monotonic()
    assert end(process) == 0, (folder / f"{name}.log").read_text()
    return Times(first - begun, time.monotonic() - first)


def wait_for_step(folder: Path, name: str, process: subprocess.Popen | Forked) -> None:
    while process.poll() is None and not steps(folder, name):
        time.sleep(0.01)


def check(folder: Path, name: str, trial: Trial, times: Times) -> str:
    """Stop one run and go on with it. -> what was found, "late" where the run had ended before the signal came."""
    record = [f"+callbacks.record.folder={folder / f'rows-{name}'}"]
    begin = Forked if trial.processes == 1 and trial.training else start
    process = begin(folder, name, [*arguments(trial.workers, trial.processes), *record])
    assert process.pid is not None
    if trial.training:
        wait_for_step(folder, name, process)
    time.sleep(trial.moment * (times.after if trial.training else times.before))
    number = getattr(signal, trial.how)
    if process.poll() is not None:
        end(process)
        return "late"
    (os.killpg if trial.group else os.kill)(process.pid, number)
    status = end(process)
    said = (folder / f"{name}.log").read_text(errors="replace")
    finished = (folder / f"outputs/{name}/metrics.json").exists()
    if status == 0 and finished:
        return "late"
    assert status == 128 + number, f"status {status}: {said[-3000:]}"
    assert "Traceback" not in said, said[-5000:]
    kept = list((folder / f"outputs/{name}/checkpoints").glob("*.ckpt"))
    if not kept:
        assert not steps(folder, name), f"{steps(folder, name)} steps were trained, and nothing is kept: {said[-3000:]}"
        assert not (folder / f"outputs/{name}").exists()
        return "nothing was trained"
    assert finished or f"go on with: mm train run={name} resume=true" in said, said[-3000:]
    during = any(torch.load(path, weights_only=True)["validation_due"] for path in kept)
    begin = Forked if trial.processes == 1 else start
    assert end(begin(folder, name, ["resume=true"])) == 0, (folder / f"{name}.log").read_text()[-3000:]
    whole, found = weights(folder, f"whole-{trial.processes}"), weights(folder, name)
    assert whole.keys() == found.keys()
    assert all(torch.equal(whole[part], found[part]) for part in whole), "other weights"
    return f"kept and resumed{', in validation' if during else ''}"


@pytest.mark.slow
def test_signals_at_random_moments(tmp_path):
    rng = random.Random(int(os.environ.get("MM_SIGNALS_SEED", "0")))
    write_texts(tmp_path)
    times = {processes: measure(tmp_path, f"whole-{processes}", processes) for processes in (1, 2)}
    wanted = int(os.environ.get("MM_SIGNALS", "12"))
    found: dict[int, str] = {}
    tries = 0
    while len(found) < wanted:
        number, tries = len(found), tries + 1
        assert tries < 3 * wanted, f"the runs end before their signal comes: {found}"
        processes = 2 if number % 8 == 7 else 1
        group, workers = number % 2 == 0 or processes == 2, number // 2 % 2 * 2
        trial = Trial(rng.choice(SIGNALS), group, workers, processes, rng.random() < 0.75, rng.random())
        what = check(tmp_path, f"cut-{tries}", trial, times[processes])
        if what != "late":
            found[number] = what
            print(number, trial, what, flush=True)
    print(json.dumps({what: list(found.values()).count(what) for what in set(found.values())}))


@pytest.mark.slow
def test_gnu_timeout_sends_its_signal_twice(tmp_path):
    write_texts(tmp_path, train=4000)
    command = ["timeout", "-s", "TERM", "15", str(Path(sys.executable).with_name("mm")), "train", "run=a"]
    args = ["trainer.max_epochs=500", f"+callbacks.record.folder={tmp_path / 'rows-a'}"]
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    ran = subprocess.run(
        [*command, *arguments(2, 1), *args], cwd=tmp_path, env=os.environ | own, capture_output=True, text=True
    )
    assert ran.returncode == 124, ran.stderr
    assert "stopped by SIGTERM after step" in ran.stderr
    assert list((tmp_path / "outputs/a/checkpoints").glob("last-*.ckpt"))


@pytest.mark.slow
def test_workers_end_with_a_main_process_that_is_killed(tmp_path):
    write_texts(tmp_path, train=4000)
    record = [f"+callbacks.record.folder={tmp_path / 'rows-a'}"]
    process = start(tmp_path, "a", [*arguments(2, 1), "trainer.max_epochs=500", *record])
    while not steps(tmp_path, "a"):
        assert process.poll() is None, (tmp_path / "a.log").read_text()
        time.sleep(0.2)
    assert len(left_over(process.pid)) >= 3
    process.kill()
    assert end(process) == 128 + signal.SIGKILL
