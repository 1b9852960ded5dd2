"""Two processes equal one, alone and in a sweep; the first that fails is told of, and none is left."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import COLUMNS, TINY, write_manifest

from mm.launch.processes import ProcessMonitor, exit_reason, is_lost_worker

EXACT = [  # nothing random but the order of rows
    "model.encoders.text.dropout=0",
    "model.encoders.audio.frontend.time_masks=0",
    "model.encoders.audio.frontend.freq_masks=0",
    "trainer.max_epochs=2",
    "task/optimizer=sgd",
]
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


def metrics(folder: Path) -> dict[str, float]:
    """What a run has measured, without its speed."""
    found = json.loads((folder / "metrics.json").read_text())
    return {n: x for n, x in found.items() if n.startswith(("test", "val", "train/steps", "train/epochs", "data"))}


@pytest.mark.slow
def test_two_processes_give_the_metrics_of_one(mm_process, manifest, tmp_path):
    # 37 training rows: an uneven share, and a last batch of one row
    args = [*COLUMNS, *TINY, *EXACT, f"datamodule.path={manifest}"]
    one = mm_process("train", *args, "datamodule.batch_size=12", "run=one")
    assert one.returncode == 0, one.stderr
    two = mm_process("train", *args, *TWO, "datamodule.batch_size=6", "run=two")
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("next:") == 1  # rank zero alone speaks
    assert sorted(f.name for f in (tmp_path / "outputs").iterdir()) == ["one", "two"]
    files = [
        sorted(str(f.relative_to(run)) for f in run.rglob("*")) for run in sorted((tmp_path / "outputs").iterdir())
    ]
    assert files[0] == files[1]
    first, second = (metrics(tmp_path / f"outputs/{run}") for run in ("one", "two"))
    assert len(first) > 50
    for name, value in first.items():
        assert second[name] == pytest.approx(value, abs=1e-5), name


@pytest.mark.slow
def test_a_sweep_of_two_jobs_of_two_processes_leaves_two_folders(mm_process, manifest, tmp_path):
    args = [*COLUMNS, *TINY, *TWO, f"datamodule.path={manifest}", "trainer.max_epochs=1"]
    swept = mm_process("train", "-m", *args, "run=sweep", "seed=0,1")
    assert swept.returncode == 0, swept.stderr
    assert [f.name for f in (tmp_path / "outputs").iterdir()] == ["sweep"]
    jobs = sorted(f for f in (tmp_path / "outputs/sweep").iterdir() if f.is_dir())
    assert [f.name for f in jobs] == ["0", "1"]
    assert all((f / "metrics.json").exists() and (f / "model/model.safetensors").exists() for f in jobs)


SABOTAGE = """
import os, signal, threading
from pathlib import Path
from lightning import Callback

class Sabotage(Callback):
    def __init__(self, rank, how):
        self.rank, self.how = rank, how

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        Path(f"pid-{os.getpid()}").touch()
        if trainer.global_step == 2 and trainer.global_rank == self.rank:
            if self.how == "exit":
                os._exit(3)
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise {"mistake": ValueError, "crash": KeyError}[self.how](f"rank {self.rank} fell over")
"""


@pytest.fixture
def sabotaged(mm_process, manifest, tmp_path):
    """Train in two processes, in the third step of which one does something to itself."""

    def run(rank: int, how: str) -> subprocess.CompletedProcess:
        (tmp_path / "sabotage.py").write_text(SABOTAGE)
        (tmp_path / "conf/callbacks").mkdir(parents=True)
        (tmp_path / "conf/callbacks/sabotage.yaml").write_text(
            f"sabotage: {{_target_: sabotage.Sabotage, rank: {rank}, how: {how}}}"
        )
        args = [*COLUMNS, *TINY, *TWO, f"datamodule.path={manifest}", "datamodule.batch_size=6", "run=one"]
        started = time.monotonic()
        run = mm_process("train", "--config-dir", "conf", *args, "callbacks=[default,sabotage]")
        assert time.monotonic() - started < 100  # a minute, and what starting takes beside other work
        return run

    return run


def gone(ids: list[int]) -> None:
    """None of these processes is at work, ten seconds from now at the latest."""
    for _ in range(100):
        if not any(alive(pid) for pid in ids):
            return
        time.sleep(0.1)
    raise AssertionError(f"left over: {[pid for pid in ids if alive(pid)]}")


def alive(pid: int) -> bool:
    """Whether it runs: one that has ended may still wait to be asked for its status."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "how", "status", "last"),
    [
        (1, "exit", 1, "mm: process 1 (of 0 to 1) has ended with status 3; its output is above"),
        (1, "kill", 1, "mm: process 1 (of 0 to 1) was ended by SIGKILL; the system does that when memory runs out"),
        (1, "mistake", 2, "mm: rank 1 fell over"),
        (1, "crash", 1, "KeyError: 'rank 1 fell over'"),
        (0, "mistake", 2, "mm: rank 0 fell over"),
        (0, "kill", -9, None),
    ],
)
def test_a_process_that_fails_ends_the_job_with_its_own_error(sabotaged, tmp_path, rank, how, status, last):
    run = sabotaged(rank, how)
    assert run.returncode == status, run.stderr
    assert "gloo" not in run.stderr  # what the other one sees of it
    if last is not None:
        assert run.stderr.strip().splitlines()[-1].removeprefix("[rank0]: ") == last
        assert run.stderr.count(f"rank {rank} fell over") <= 1 + (how == "crash")
    ids = [int(path.name.removeprefix("pid-")) for path in tmp_path.glob("pid-*")]
    assert len(ids) == 2
    gone(ids)


@pytest.mark.slow
def test_a_row_that_one_process_cannot_read_is_told_once(mm_process, tmp_path):
    path = write_manifest(tmp_path / "data", 30)
    (tmp_path / "data/media/3.png").write_bytes(b"no picture")  # row 3 is for training
    args = [*COLUMNS, *TINY, *TWO, f"datamodule.path={path}", "datamodule.num_workers=1", "run=one"]
    run = mm_process("train", *args)
    assert run.returncode == 2, run.stderr
    assert run.stderr.count("column 'photo'") == 1
    assert run.stderr.strip().splitlines()[-1].startswith("mm: ")


def started(code: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code])


def test_the_monitor_ends_the_others_and_keeps_what_was_said(tmp_path):
    (tmp_path / "7.json").write_text(json.dumps({"status": 2, "text": "row 3 is no picture"}))
    patient, failing = started("import time; time.sleep(60)"), started("raise SystemExit(2)")
    monitor = ProcessMonitor([patient, failing], tmp_path)
    monitor.start()
    assert monitor.failed.wait(30)
    monitor.close()
    assert (monitor.status, monitor.text) == (2, "row 3 is no picture")
    assert patient.returncode == -9
    assert not tmp_path.exists()


def test_the_monitor_lets_those_that_succeed_come_to_their_end(tmp_path):
    child = started("import time; time.sleep(0.5)")
    monitor = ProcessMonitor([child], tmp_path)
    monitor.start()
    monitor.close()
    assert child.returncode == 0
    assert not monitor.failed.is_set()


def test_a_first_process_that_does_not_notice_is_ended(tmp_path):
    code = f"""
import subprocess, sys, time
from pathlib import Path
from mm.launch import processes
processes.GRACE = 0.5
folder = Path({str(tmp_path / "reports")!r})
folder.mkdir()
child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
processes.ProcessMonitor([child], folder).start()
time.sleep(60)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert run.returncode == 1
    assert "process 1 (of 0 to 1) has ended with status 3" in run.stderr


def test_a_process_ends_when_the_one_that_started_it_is_gone(tmp_path):
    child = """
import os, sys, threading, time
from mm.launch.processes import end_with_parent
threading.Thread(target=end_with_parent, args=(int(sys.argv[1]),), daemon=True).start()
time.sleep(60)
"""
    parent = f"""
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {child!r}, str(os.getpid())])
print(child.pid, flush=True)
time.sleep(2)
os.kill(os.getpid(), 9)
"""
    run = subprocess.run([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, timeout=50)
    gone([int(run.stdout)])


def test_the_first_report_counts_and_else_the_status(tmp_path):
    assert exit_reason([None, -11], tmp_path) == (1, "process 2 (of 0 to 2) was ended by SIGSEGV")
    for name, time_ns in (("late", 2_000_000_000), ("early", 1_000_000_000)):
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps({"status": 1, "text": name}))
        os.utime(file, ns=(time_ns, time_ns))
    assert exit_reason([1, 1], tmp_path) == (1, "early")


def test_what_a_lost_connection_says():
    assert is_lost_worker(RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:40644"))
    assert not is_lost_worker(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_lost_worker(ValueError("the text says: connection reset"))
