"""`mm benchmark`: its figures add up, and say what a planted fault makes slow."""

import time

import pytest
from conftest import COLUMNS, TINY

from mm.profiling.benchmark import NAMES
from mm.transforms.vision.pixels import ImageTransform

SMALL = [*COLUMNS, *TINY, "datamodule.batch_size=12", "steps=10", "warmup=1"]


def test_measures_any_configuration(mm, manifest):
    run = mm("benchmark", *SMALL, f"datamodule.path={manifest}", "run=speed", "trainer.accumulate_grad_batches=2")
    assert run.status == 0, run.err
    found = {name.removeprefix("benchmark/"): value for name, value in run.metrics.items()}
    step = found["step_seconds"]
    assert sum(found[f"{phase}_seconds"] for phase in NAMES) == pytest.approx(step)
    assert min(found[f"{phase}_seconds"] for phase in NAMES) > 0
    assert found["samples_per_second"] * step == pytest.approx(12)  # 36 rows make three batches
    per_sample = found["tokens_per_second"] / found["samples_per_second"]
    assert 9 < per_sample < 12  # "it is red" has 9 bytes, "it is green!!!" 14; ten of twelve rows repeat
    assert found["audio_seconds_per_second"] / found["samples_per_second"] == pytest.approx(0.175, abs=0.02)
    assert found["ratio"] * found["by_hand_seconds"] == pytest.approx(step, rel=0.9)
    assert found["mfu"] == pytest.approx(found["step_flops"] / step / found["attainable_flops_per_second"])
    assert found["peak_bytes"] > 2**26
    assert {f.name for f in run.folder.iterdir()} == {
        "config.yaml",
        "csv",
        "metrics.directions.json",
        "metrics.json",
        "overrides.yaml",
        "report.txt",
    }
    assert (run.folder / "report.txt").read_text() in run.out


def test_what_waits_for_a_validation_is_left_out(mm, manifest):
    run = mm("benchmark", *SMALL, f"datamodule.path={manifest}", "callbacks=[default,early_stopping]")
    assert run.status == 0, run.err


def test_a_slow_transform_is_named(mm, manifest, monkeypatch):
    read = ImageTransform.__call__
    monkeypatch.setattr(ImageTransform, "__call__", lambda *args, **how: [time.sleep(0.01), read(*args, **how)][1])
    run = mm("benchmark", *SMALL, f"datamodule.path={manifest}", "run=slow")
    assert "waits for data" in run.out
    assert "raise datamodule.num_workers (now 0" in run.out
    assert run.metrics["benchmark/data_seconds"] > 12 * 0.01
    assert run.metrics["benchmark/ratio"] < 1.5  # the loop by hand waits as well


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["steps=7"], "steps: got 7, wanted a multiple of 10"),
        (["warmup=0"], "warmup: got 0, wanted at least 1"),
        (["trainer.precision=64-true"], "wanted 32-true, bf16-mixed or 16-mixed"),
    ],
)
def test_mistakes(mm, manifest, args, said):
    run = mm("benchmark", *SMALL, f"datamodule.path={manifest}", *args)
    assert (run.status, said in run.err) == (2, True), run.err
    assert "Traceback" not in run.err
