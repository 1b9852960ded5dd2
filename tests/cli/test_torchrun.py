"""Processes that torchrun starts are one run; it goes on when torchrun has to start them again."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import COLUMNS, TINY

TORCHRUN = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node=2", "--max-restarts=1"]


def workers(parent: int) -> list[int]:
    """Processes that this one has started and that run `mm`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            stat, line = (process / "stat").read_text(), (process / "cmdline").read_text()
        except OSError:  # it has just ended
            continue
        if int(stat.rpartition(")")[2].split()[1]) == parent and "-m\0mm\0train" in line:
            found.append(int(process.name))
    return sorted(found)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_started_again_and_the_run_goes_on(manifest, tmp_path):
    args = [*COLUMNS, *TINY, f"datamodule.path={manifest}", "datamodule.batch_size=6", "trainer.max_epochs=30"]
    command = [*TORCHRUN, "-m", "mm", "train", "trainer=ddp", "trainer.devices=2", *args, "run=elastic"]
    settings = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    run = tmp_path / "outputs/elastic"
    with (tmp_path / "screen").open("w") as screen:
        torchrun = subprocess.Popen(command, cwd=tmp_path, env=os.environ | settings, stdout=screen, stderr=screen)
    try:
        while not list(run.glob("checkpoints/*.ckpt")):
            assert torchrun.poll() is None, (tmp_path / "screen").read_text()
            time.sleep(0.1)
        os.kill(workers(torchrun.pid)[1], signal.SIGKILL)
        assert torchrun.wait(timeout=150) == 0, (tmp_path / "screen").read_text()
    finally:
        torchrun.terminate()
        torchrun.wait()
    said = (tmp_path / "screen").read_text()
    assert "started again: goes on in outputs/elastic" in said
    assert 0 < int(re.findall(r"going on from .*?(\d+)\.ckpt", said)[0]) < 3 * 30
    assert [f.name for f in (tmp_path / "outputs").iterdir()] == ["elastic"]
    assert said.count("metrics      outputs/elastic/metrics.json") == 1  # told, and so written, by one process
    assert len(list(run.glob("csv/version_*"))) == 2
