"""A signal during the test of a run: an exit status that tells of it, and no trace of Lightning's own handlers."""

import json
import signal

import pytest
from conftest import COLUMNS, ROOT, TINY

SMALL = [*COLUMNS, *TINY, "datamodule.batch_size=4", "trainer.max_epochs=1"]
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


def kill(how: str) -> list[str]:
    return ["+callbacks.kill._target_=planted.KillInTest", f"+callbacks.kill.how={how}"]


@pytest.mark.parametrize(("how", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_in_the_test_is_told_and_the_run_is_not_finished(mm, manifest, tmp_path, how, status):
    ran = mm("train", *SMALL, f"datamodule.path={manifest}", "run=a", *kill(how))
    assert ran.status == status, ran.err
    assert f"stopped by {how} after step 9" in ran.err
    assert "go on with: mm train run=a resume=true" in ran.err
    assert not (tmp_path / "outputs/a/metrics.json").exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    done = mm("train", "run=a", "resume=true", "~callbacks.kill")
    assert done.status == 0, done.err
    assert done.metrics["train/steps"] == 9
    assert "test/accuracy" in done.metrics


@pytest.mark.slow
def test_of_two_processes_the_first_tells_once(mm_process, manifest, tmp_path):
    args = ["train", *SMALL, *TWO, f"datamodule.path={manifest}", "run=a", *kill("SIGTERM")]
    ran = mm_process(*args, PYTHONPATH=str(ROOT / "tests"))
    assert ran.returncode == 143, ran.stderr
    assert ran.stderr.count("stopped by SIGTERM") == 1
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "outputs/a/metrics.json").exists()


def test_slurms_warning_leaves_nothing_for_later_runs(mm, manifest, tmp_path, monkeypatch):
    args = [*SMALL, f"datamodule.path={manifest}"]
    task = {"NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_NAME": "mm", "JOB_ID": "7"}
    for name, value in (task | {"NTASKS_PER_NODE": "1", "NODELIST": "127.0.0.1"}).items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    scontrol = tmp_path / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!/bin/sh\ntouch {tmp_path}/requeued\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(scontrol.parent), prepend=":")
    stopped = mm("train", *args, "run=first", *kill("SIGUSR1"))
    assert stopped.status == 128 + signal.SIGUSR1, stopped.err
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    assert not (tmp_path / "requeued").exists()
    (tmp_path / "hpc_ckpt_1.ckpt").write_bytes(b"of another run")
    after = mm("train", *args, "run=second")
    assert after.status == 0, after.err
    assert json.loads((tmp_path / "outputs/second/metrics.json").read_text())["train/steps"] == 9


def test_who_listened_before_hears_it_again(mm, manifest, monkeypatch):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda signum, frame: heard.append(signum))
    try:
        ran = mm("train", *SMALL, f"datamodule.path={manifest}", "run=a", *kill("SIGTERM"))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ran.status == 0, ran.err
    assert heard == [signal.SIGTERM]
    assert "test/accuracy" in ran.metrics
