"""A sharded run leaves what any other does, and goes on in another number of processes."""

import pyarrow.parquet
import pytest
import yaml
from conftest import COLUMNS, TINY
from launch.test_processes import EXACT, metrics
from safetensors.torch import load_file

STEADY = ["task/scheduler=constant", "task.scheduler.warmup=0"]  # the same rate however long the run is to be
# Pictures of one colour have no variance but that of rounding, which norms amplify: by more on some processors.
CLOSE = 5e-4
TWO = ["trainer=fsdp", "trainer.devices=2", "datamodule.batch_size=6"]


def same_run(outputs, one, two):
    """Model directories, files, metrics and predictions of two runs are the same, up to rounding."""
    files = [sorted(str(f.relative_to(outputs / run)) for f in (outputs / run).iterdir()) for run in (one, two)]
    assert files[0] == files[1]
    weights = [load_file(outputs / run / "model/model.safetensors") for run in (one, two)]
    assert list(weights[0]) == list(weights[1])
    for name, x in weights[0].items():
        assert (x - weights[1][name]).abs().max() < CLOSE, name
    configs = [yaml.safe_load((outputs / run / "model/config.yaml").read_text()) for run in (one, two)]
    assert configs[0] == configs[1]
    measured = [metrics(outputs / run) for run in (one, two)]
    assert len(measured[0]) > 50
    assert measured[0].keys() == measured[1].keys()
    for name, value in measured[0].items():
        assert measured[1][name] == pytest.approx(value, abs=CLOSE), name
    tables = [pyarrow.parquet.read_table(outputs / run / "predictions.parquet").to_pydict() for run in (one, two)]
    for name in ("id", "target/prediction", "colour"):
        assert tables[0][name] == tables[1][name], name


@pytest.mark.slow
def test_a_sharded_model_leaves_as_the_same_directory(mm_process, manifest, tmp_path):
    args = [*COLUMNS, *TINY, *EXACT, f"datamodule.path={manifest}"]
    one = mm_process("train", *args, "datamodule.batch_size=12", "run=one")
    assert one.returncode == 0, one.stderr
    two = mm_process("train", *args, *TWO, "run=two")
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("next:") == 1  # rank zero alone speaks
    assert all(path.is_dir() for path in (tmp_path / "outputs/two/checkpoints").iterdir())
    same_run(tmp_path / "outputs", "one", "two")


@pytest.mark.slow
def test_a_sharded_checkpoint_resumes_in_any_number_of_processes(mm_process, manifest, tmp_path):
    args = [*COLUMNS, *TINY, *EXACT, *STEADY, f"datamodule.path={manifest}"]
    alone = ["trainer.devices=1", "datamodule.batch_size=12"]
    for more in (
        [*args, *TWO, "trainer.max_epochs=1"],
        ["resume=true", *alone, "trainer.max_epochs=2"],
        ["resume=true", "trainer.devices=2", "datamodule.batch_size=6", "trainer.max_epochs=3"],
    ):
        run = mm_process("train", "run=moved", *more)
        assert run.returncode == 0, run.stderr
    one = mm_process("train", *args, "trainer.max_epochs=3", "datamodule.batch_size=12", "run=one")
    assert one.returncode == 0, one.stderr
    same_run(tmp_path / "outputs", "one", "moved")


def test_one_process_may_shard_as_well(mm, manifest, tmp_path):
    args = [*COLUMNS, *TINY, f"datamodule.path={manifest}", "trainer.devices=1", "trainer.max_epochs=1"]
    more = ["trainer.precision=bf16-mixed", "run=one", "model/fusion=transformer"]
    run = mm("train", *args, "trainer=fsdp", *more)
    assert run.status == 0, run.err
    folder = next((tmp_path / "outputs/one/checkpoints").glob("last-*"))
    again = mm("train", "run=one", "resume=true", "trainer=default", "trainer.max_epochs=2")
    assert again.status == 2
    assert "is a sharded checkpoint; resume with trainer=fsdp" in again.err
    for file in [folder / ".metadata", *(p / ".metadata" for p in folder.parent.glob("best-*"))]:
        file.unlink()
    torn = mm("train", "run=one", "resume=true", "trainer.max_epochs=2")
    assert torn.status == 2
    assert f"{folder.name} is torn" in torn.err


def test_a_moving_average_is_refused(mm, manifest):
    args = [*COLUMNS, *TINY, f"datamodule.path={manifest}", "trainer=fsdp", "trainer.devices=1"]
    run = mm("train", *args, "callbacks=[default,ema]", "run=one")
    assert run.status == 2
    assert "ema keeps a second model" in run.err
