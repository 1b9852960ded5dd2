"""Two processes equal one, alone and in a sweep."""

import json

import pytest
from conftest import COLUMNS, TINY

EXACT = [  # nothing random but the order of rows
    "model.encoders.text.dropout=0",
    "model.encoders.audio.frontend.time_masks=0",
    "model.encoders.audio.frontend.freq_masks=0",
    "trainer.max_epochs=2",
    "task/optimizer=sgd",
]
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


@pytest.mark.slow
def test_two_processes_give_the_metrics_of_one(mm_process, manifest, tmp_path):
    # 37 training rows: an uneven share, and a last batch of one row
    args = [*COLUMNS, *TINY, *EXACT, f"datamodule.path={manifest}"]
    one = mm_process("train", *args, "datamodule.batch_size=12", "run=one")
    assert one.returncode == 0, one.stderr
    two = mm_process("train", *args, *TWO, "datamodule.batch_size=6", "run=two")
    assert two.returncode == 0, two.stderr
    assert sorted(f.name for f in (tmp_path / "outputs").iterdir()) == ["one", "two"]
    metrics = [json.loads((tmp_path / f"outputs/{run}/metrics.json").read_text()) for run in ("one", "two")]
    names = [n for n in metrics[0] if n.startswith(("test", "val", "train/steps", "train/epochs", "data"))]
    assert len(names) > 50
    for name in names:
        assert metrics[1][name] == pytest.approx(metrics[0][name], abs=1e-4), name


@pytest.mark.slow
def test_a_sweep_of_two_jobs_of_two_processes_leaves_two_folders(mm_process, manifest, tmp_path):
    args = [*COLUMNS, *TINY, *TWO, f"datamodule.path={manifest}", "trainer.max_epochs=1"]
    swept = mm_process("train", "-m", *args, "run=sweep", "seed=0,1")
    assert swept.returncode == 0, swept.stderr
    assert [f.name for f in (tmp_path / "outputs").iterdir()] == ["sweep"]
    jobs = sorted(f for f in (tmp_path / "outputs/sweep").iterdir() if f.is_dir())
    assert [f.name for f in jobs] == ["0", "1"]
    assert all((f / "metrics.json").exists() and (f / "model/model.safetensors").exists() for f in jobs)
