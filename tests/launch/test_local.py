"""Many runs on one machine: who runs when and on what, what is tried again, skipped, stopped; and whole sweeps."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from conftest import COLUMNS, TINY

from mm.launch import local
from mm.launch.job import Job, identity
from mm.launch.local import LocalPool, allocate_slots

# A job that says when it ran and on what, then does as its last argument says.
STANDIN = """
import json, os, pathlib, sys, time
folder, how = pathlib.Path(sys.argv[1]), sys.argv[2]
tries = int(os.environ.get("MM_RESTART_COUNT", 0))
folder.mkdir(exist_ok=True)
(folder / "overrides.yaml").write_text(f"# mm train\\n[seed={folder.name}, run=s/{folder.name}]")
begun = time.monotonic()
if how == "hang":
    print("hanging", flush=True)
    time.sleep(60)
time.sleep(0.1)
if how == "leave":
    sys.exit(0)
if how == "mistake":
    print("mm: seed: got 'x'")
    sys.exit(2)
if how == "fail" or how == "once" and not tries:
    print("step 1\\rstep 2\\rstep 3", flush=True)
    raise RuntimeError(f"broken at try {tries}")
kept = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "WANDB_RUN_GROUP", "WANDB_RUN_ID", "MM_RESTART_COUNT")
said = {"from": begun, "to": time.monotonic()} | {k: os.environ[k] for k in kept if k in os.environ}
(folder / "said.json").write_text(json.dumps(said))
(folder / "metrics.json").write_text(json.dumps({"test/accuracy": 0.5}))
"""


PROGRAM = (sys.executable, "-c", STANDIN)


def pool(*gpus: str, retries: int = 1) -> LocalPool:
    return LocalPool(len(gpus), gpus, retries, print, PROGRAM)


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Make jobs of stand-ins: what each does -> the jobs, in a folder of their own."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "s").mkdir()

    def jobs(*actions: str) -> list[Job]:
        made = []
        for i, action in enumerate(actions):
            folder = tmp_path / f"s/{i}"
            made.append(Job([str(folder), action, f"seed={i}"], folder, f"seed={i}", i))
        return made

    return jobs


def said(job: Job) -> dict:
    return json.loads((job.folder / "said.json").read_text())


def test_one_job_per_free_device(sweep, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "one")
    jobs = sweep(*["fine"] * 7)
    assert pool("0", "1", "2").run(jobs) == [""] * 7
    by_gpu: dict[str, list[tuple[float, float]]] = {}
    for job in jobs:
        by_gpu.setdefault(said(job)["CUDA_VISIBLE_DEVICES"], []).append((said(job)["from"], said(job)["to"]))
        assert said(job)["WANDB_RUN_GROUP"] == "s"
        assert "WANDB_RUN_ID" not in said(job)
    assert sorted(by_gpu) == ["0", "1", "2"]
    for times in by_gpu.values():
        assert all(end <= begin for (_, end), (begin, _) in zip(sorted(times), sorted(times)[1:]))


def test_failures_leave_the_others_are_tried_once_more_and_told(sweep, capfd):
    jobs = sweep("fine", "fail", "once", "mistake", "fine")
    errors = pool("0", "1").run(jobs)
    assert [bool(error) for error in errors] == [False, True, False, True, False]
    assert "RuntimeError: broken at try 1" in errors[1]
    assert "status 1" in errors[1]
    assert "step 3" in errors[1]
    assert "step 2" not in errors[1]  # a bar's last state is enough
    assert "mm: seed: got 'x'" in errors[3]
    assert jobs[1].log.read_text().count("RuntimeError") == 2
    assert jobs[3].log.read_text().count("seed: got") == 1  # a mistake is not made twice
    assert said(jobs[2])["MM_RESTART_COUNT"] == "1"  # goes on with what the first try has left
    out = capfd.readouterr().out
    assert "broken" not in out
    assert out.count("failed with status 1") == 3


def test_a_job_without_metrics_is_not_finished(sweep, monkeypatch):
    (job,) = sweep("leave")
    (error,) = pool("0", retries=0).run([job])
    assert error.startswith("ended without metrics.json")
    monkeypatch.setattr(local, "VERBS_WITHOUT_METRICS", (job.command[0],))  # as mm embed
    assert pool("0", retries=0).run([job]) == [""]


def test_the_same_again_runs_only_what_is_left(sweep, capfd):
    pool("0", retries=0).run(sweep("fine", "fail"))
    times = [said(job) for job in sweep("fine")]
    jobs = sweep("fine", "fine", "fine")
    assert pool("0", retries=0).run(jobs) == ["", "", ""]
    assert said(jobs[0]) == times[0]
    assert said(jobs[1])["MM_RESTART_COUNT"] == "1"
    assert "MM_RESTART_COUNT" not in said(jobs[2])
    assert "1 of them finished" in capfd.readouterr().out
    other = [Job(["x", "seed=7", "trainer.devices=2"], jobs[0].folder)]
    with pytest.raises(ValueError, match="holds another run \\(there: seed=0; now: seed=7\\)"):
        pool("0", retries=0).run(other)


def test_a_signal_stops_every_job(sweep):
    jobs = sweep("hang", "hang", "hang")

    def stop() -> None:
        while not all(job.log.exists() and "hanging" in job.log.read_text() for job in jobs[:2]):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop).start()
    stopped_pool = pool("0", "1")
    with pytest.raises(SystemExit) as stopped:
        stopped_pool.run(jobs)
    assert stopped.value.code == 130
    assert not stopped_pool.running
    assert not jobs[2].folder.exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_job_that_an_earlier_command_still_runs_is_left_alone(sweep):
    (job,) = sweep("fine")
    with job.log.open("ab") as log:  # as a job holds it whose pool was killed
        orphan = subprocess.Popen(
            [sys.executable, "-c", "import fcntl, sys; fcntl.flock(1, fcntl.LOCK_EX); input()"],
            stdin=subprocess.PIPE,
            stdout=log,
        )
        while _free(log.name):
            time.sleep(0.05)
    try:
        (error,) = pool("0").run([job])
        assert "still runs it" in error
        assert not job.folder.exists()
    finally:
        orphan.communicate(b"\n")
    assert pool("0").run([job]) == [""]


def _free(log: str) -> bool:
    import fcntl

    with Path(log).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_slots_follow_devices(monkeypatch):
    for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))

    def gpus(devices, gpus=(), slots=None) -> list[tuple[str | None, str]]:
        made = allocate_slots([Job(["train"], Path("x"), devices=devices)], slots, gpus)
        return [(share.get("CUDA_VISIBLE_DEVICES"), share["OMP_NUM_THREADS"]) for share in made]

    assert gpus(1, gpus=range(8)) == [(str(i), "2") for i in range(8)]
    assert gpus(2, gpus=[0, 1, 2, 5, 7]) == [("0,1", "4"), ("2,5", "4")]
    assert gpus(-1, gpus=[0, 1]) == [("0,1", "8")]
    assert gpus(1, gpus=["a", "b"], slots=3) == [("a", "5"), ("b", "5"), ("a", "5")]
    assert gpus(1) == [(None, "1")] * 16
    assert gpus(2, slots=4) == [(None, "2")] * 4
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert gpus(1, gpus=range(2)) == [("4", "8"), ("6", "8")]
    assert gpus(1, gpus=[1, "GPU-a"]) == [("6", "8"), ("GPU-a", "8")]
    with pytest.raises(ValueError, match="got 4, wanted 0 to 1: numbers count the GPUs of CUDA_VISIBLE_DEVICES=4,6"):
        gpus(1, gpus=[4])
    with pytest.raises(ValueError, match="a job wants 4 devices .*, there are 2: 4, 6"):
        gpus(4, gpus=range(2))
    with pytest.raises(ValueError, match="slots: got 0, wanted 1 or more"):
        gpus(1, slots=0)


def test_a_job_is_what_its_overrides_are():
    words = ["train", "--config-dir=conf", "hydra.verbose=true", "seed=1", "~callbacks.checkpoint", "run='s/1'"]
    assert identity(words[1:]) == {"seed=1", "~callbacks.checkpoint"}
    assert identity(["+trainer.devices=2", "trainer=ddp"]) == {"trainer=ddp"}
    assert identity(["trainer.devices=2"], ("run",)) == {"trainer.devices=2"}


SMALL = [*COLUMNS, *TINY, "datamodule.batch_size=16", "trainer.max_epochs=1"]


@pytest.mark.slow
def test_a_sweep_in_a_pool(mm_process, manifest, tmp_path):
    args = ("train", "-m", "hydra/launcher=local_pool", "hydra.launcher.slots=2", *SMALL, "run=sweep")
    args = (*args, f"datamodule.path={manifest}", "logger=[csv,wandb]", "seed=0,1,x")
    ran = mm_process(*args)
    assert ran.returncode == 2, ran.stderr
    assert "1 of 3 jobs failed: outputs/sweep/2" in ran.stderr
    assert "seed=x: failed with status 2" in ran.stdout
    sweep = tmp_path / "outputs/sweep"
    assert "Traceback" not in ran.stderr + (sweep / "2.log").read_text()
    assert all((sweep / f"{job}/model/model.safetensors").exists() for job in "01")
    assert "±" in ran.stdout
    assert [yaml.safe_load((sweep / f"{job}/config.yaml").read_text())["seed"] for job in "01"] == [0, 1]
    wandb = [yaml.safe_load((sweep / f"{job}/config.yaml").read_text())["logger"]["wandb"] for job in "01"]
    assert [node["name"] for node in wandb] == ["sweep/0", "sweep/1"]
    before = [(sweep / f"{job}/metrics.json").stat().st_mtime_ns for job in "01"]
    (sweep / "1/metrics.json").unlink()  # as if it had been killed before its end
    again = mm_process(*args[:-1], "seed=0,1")
    assert again.returncode == 0, again.stderr
    assert (sweep / "0/metrics.json").stat().st_mtime_ns == before[0]
    assert "started again: goes on in outputs/sweep/1" in (sweep / "1.log").read_text()
    assert again.stdout.strip().splitlines()[-1] == "outputs/sweep"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "local_pool"])
def test_two_jobs_of_two_processes_are_two_runs(mm_process, manifest, tmp_path, launcher):
    two = ["trainer=ddp", "trainer.devices=2", f"hydra/launcher={launcher}", f"datamodule.path={manifest}"]
    ran = mm_process("train", "-m", *SMALL, *two, "run=sweep", "seed=0,1")
    assert ran.returncode == 0, ran.stderr
    assert [f.name for f in (tmp_path / "outputs").iterdir()] == ["sweep"]
    jobs = sorted(f for f in (tmp_path / "outputs/sweep").iterdir() if f.is_dir())
    assert [f.name for f in jobs] == ["0", "1"]
    for job in jobs:
        assert json.loads((job / "metrics.json").read_text())["train/steps"] == 2  # 36 rows, 2 times 16
        assert [f.name for f in job.glob("csv/*")] == ["version_0"]
