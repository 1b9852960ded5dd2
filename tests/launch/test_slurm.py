"""Jobs on Slurm: what is asked for, and, on a cluster of one node that the test starts, a job that is pre-empted."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from conftest import COLUMNS, TINY

from mm.launch.slurm import SlurmRequest

ROOT = Path(__file__).parents[2]
DEFAULTS = yaml.safe_load((ROOT / "conf/hydra/launcher/slurm.yaml").read_text())
TWO = ["hydra/launcher=slurm", "hydra.launcher.tasks_per_node=2"]
SKIP = 77  # exit status of scripts/slurm_testbed where Slurm can't be had


def request(**changed) -> SlurmRequest:
    return SlurmRequest(**({k: v for k, v in DEFAULTS.items() if k != "_target_"} | changed))


def test_sbatch_is_asked_for_what_was_typed():
    asked = request(nodes=4, gpus_per_node=8, account="me", mem_gb=0.5, additional_parameters={"gres": "x"}).sbatch()
    assert (asked["nodes"], asked["ntasks_per_node"], asked["gpus_per_node"], asked["account"]) == (4, 8, 8, "me")
    assert asked["mem"] == "512MB"
    assert "partition" not in asked
    assert asked["additional_parameters"] == {"requeue": True, "gres": "x"}
    assert request(requeue=0).sbatch()["additional_parameters"] == {"no-requeue": True}


def test_the_defaults_are_those_of_the_command():
    assert request() == SlurmRequest()


def test_without_slurm_it_is_one_message(mm, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    ran = mm("train", "-m", *TWO, "run=none", "trainer.accelerator=cpu")
    assert ran.status == 2
    assert "there is no sbatch and srun here" in ran.err
    assert "Traceback" not in ran.err


@pytest.fixture(scope="module")
def testbed(tmp_path_factory) -> Iterator[dict[str, str]]:
    """The environment of a cluster of one node."""
    folder = tmp_path_factory.mktemp("slurm")
    command = [str(ROOT / "scripts/slurm_testbed")]
    started = subprocess.run([*command, "start", str(folder)], capture_output=True, text=True)
    if started.returncode == SKIP:
        pytest.skip(started.stderr.strip())
    assert started.returncode == 0, started.stderr
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    settings = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    yield os.environ | settings | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
    subprocess.run([*command, "stop", str(folder)], check=True)
    assert [p for p in Path("/proc").glob("[0-9]*") if str(folder) in environment(p)] == []  # daemons and jobs


def environment(process: Path) -> str:
    try:
        return (process / "environ").read_text(errors="replace")
    except OSError:  # it has just ended
        return ""


def until(found: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)


def queue(env: dict[str, str]) -> list[str]:
    return subprocess.run(["squeue", "-h", "-o", "%i"], env=env, capture_output=True, text=True).stdout.split()


def saved(folder: Path) -> int:
    """The highest step of which there is a checkpoint."""
    return max([0, *(int(n) for f in folder.glob("checkpoints/*.ckpt") for n in re.findall(r"(\d+)\.ckpt", f.name))])


SMALL = [*COLUMNS, *TINY, "datamodule.batch_size=6", "trainer.max_epochs=40"]  # 36 training rows: 3 steps for two


@pytest.mark.slow
def test_a_preempted_job_of_two_processes_goes_on_by_itself(testbed, manifest, tmp_path):
    args = [*SMALL, f"datamodule.path={manifest}", "run=sweep", "logger=[csv,wandb]"]
    command = [sys.executable, "-m", "mm", "train", "-m", *TWO, *args]
    screen, run = tmp_path / "screen", tmp_path / "outputs/sweep/0"
    with screen.open("w") as output:
        submitted = subprocess.Popen(command, cwd=tmp_path, env=testbed, stdout=output, stderr=subprocess.STDOUT)
    try:
        until(lambda: saved(run) > 0)
        first, (job,) = (run / "wandb_id").read_text(), queue(testbed)
        subprocess.run(["scancel", "--signal=USR2", job], env=testbed, check=True)
        before = saved(run)
        assert submitted.wait(timeout=150) == 0, screen.read_text()
    finally:
        submitted.kill()
        submitted.wait()
    assert screen.read_text().splitlines()[-1] == "outputs/sweep"
    log = (tmp_path / "outputs/sweep/slurm" / f"{job}_0_log.out").read_text()
    errors = [(tmp_path / "outputs/sweep/slurm" / f"{job}_{rank}_log.err").read_text() for rank in (0, 1)]
    assert [f"GLOBAL_RANK: {rank}, MEMBER: {rank + 1}/2" in errors[rank] for rank in (0, 1)] == [True, True]
    begun = int(re.findall(r"going on from .*?(\d+)\.ckpt", log)[0])
    assert before <= begun < 3 * 40
    assert "started again: goes on in outputs/sweep/0" in log
    # one run, on disk and on W&B
    assert sorted(f.name for f in run.parent.iterdir() if f.is_dir()) == ["0", "slurm"]
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["devices"] == 2
    assert len(list(run.glob("csv/version_*"))) == 2
    names = [f.name for f in run.glob("wandb/offline-run-*")]
    assert len(names) == 2
    assert all(name.endswith(first) for name in names)


@pytest.mark.slow
def test_the_script_for_sbatch_is_requeued_before_its_time_is_up(testbed, manifest, tmp_path):
    args = ["train", *SMALL, f"datamodule.path={manifest}", "run=alone", "trainer=ddp", "trainer.devices=2"]
    sbatch = ["sbatch", "--parsable", "--ntasks-per-node=2", str(ROOT / "scripts/job.sbatch"), *args]
    done = subprocess.run(sbatch, cwd=tmp_path, env=testbed, capture_output=True, text=True, check=True)
    run, job = tmp_path / "outputs/alone", done.stdout.strip()
    until(lambda: saved(run) > 0)
    subprocess.run(["scancel", "--batch", "--signal=USR1", job], env=testbed, check=True)  # as Slurm itself does
    until(lambda: (run / "metrics.json").exists() and not queue(testbed))
    log = (tmp_path / f"slurm-{job}.log").read_text()
    kept = re.findall(r"stopped by SIGUSR1 after step (\d+)", log)
    assert re.findall(r"going on from .*?0*(\d+)\.ckpt", log) == kept
    assert [f.name for f in (tmp_path / "outputs").iterdir()] == ["alone"]


def test_a_signal_that_nobody_may_choose_is_refused(mm, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: name)
    ran = mm("train", "-m", *TWO, "run=none", "trainer.accelerator=cpu", f"hydra.launcher.signal={signal.SIGHUP.name}")
    assert ran.status == 2
    assert "wanted USR1 or USR2" in ran.err
