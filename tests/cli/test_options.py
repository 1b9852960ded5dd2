"""Options that change how a run trains, each seen to act."""

import csv

import pytest
import torch
import yaml
from conftest import COLUMNS, TINY

import mm as package

LR = "task.optimizer.lr=0.01"
SMALL = [*COLUMNS, *TINY, "datamodule.batch_size=16"]


def weights(folder) -> dict[str, torch.Tensor]:
    return package.load(folder / "model").model.state_dict()


def test_freezing_ema_precision_and_early_stopping(mm, manifest):
    data = f"datamodule.path={manifest}"
    frozen = mm("train", *SMALL, data, "run=frozen", "task.freeze=['^encoders\\.text']", "trainer.max_epochs=1")
    assert frozen.status == 0, frozen.err
    start = mm("train", *SMALL, data, "run=start", "trainer.max_epochs=1", "task.optimizer.lr=0")
    before, after = weights(start.folder), weights(frozen.folder)
    for name, value in before.items():
        assert torch.equal(value, after[name]) == name.startswith("encoders.text"), name

    # an average that forgets at once is the model itself; one that remembers is another
    plain = mm("train", *SMALL, data, "run=plain", "trainer.max_epochs=1")
    for decay, same in ((0.0, True), (0.9, False)):
        args = ["callbacks=[default,ema]", f"callbacks.ema.decay={decay}", f"run=ema-{decay}", "trainer.max_epochs=1"]
        ema = mm("train", *SMALL, data, *args)
        assert ema.status == 0, ema.err
        averaged = weights(ema.folder)
        assert all(torch.equal(value, averaged[name]) for name, value in weights(plain.folder).items()) == same

    half = mm("train", *SMALL, data, "run=half", "trainer.max_epochs=1", "trainer.precision=bf16-mixed")
    assert half.status == 0, half.err
    assert 0 < half.metrics["test/loss"] < 3

    stop = ["callbacks=[default,early_stopping]", "callbacks.early_stopping.patience=1", "task.optimizer.lr=0"]
    stopped = mm("train", *SMALL, data, "run=stopped", "trainer.max_epochs=9", *stop)
    assert stopped.metrics["train/epochs"] == 2


def test_another_choice_of_callbacks_keeps_checkpoints_and_resuming(mm, manifest):
    data = f"datamodule.path={manifest}"
    run = mm("train", *SMALL, data, "run=stop", "trainer.max_epochs=1", "callbacks=early_stopping")
    assert run.status == 0, run.err
    assert {file.name.split("-")[0] for file in (run.folder / "checkpoints").iterdir()} == {"best", "last"}
    again = mm("train", "run=stop", "resume=true", "trainer.max_epochs=2")
    assert again.status == 0, again.err
    assert again.metrics["train/epochs"] == 2
    bare = ["~callbacks.checkpoint", "~callbacks.periodic_checkpoint"]
    run = mm("train", *SMALL, data, "run=bare", "trainer.max_epochs=1", "callbacks=[early_stopping,default]", *bare)
    assert run.status == 0, run.err
    assert not (run.folder / "checkpoints").exists()


def test_best_checkpoints_go_by_the_monitored_metric(mm, manifest):
    run = mm(
        "train", *SMALL, f"datamodule.path={manifest}", "run=best", "trainer.max_epochs=3",
        "monitor.metric=val/accuracy", "monitor.mode=max", "callbacks.checkpoint.save_top_k=2",
        "trainer.log_every_n_steps=1", "task.modality_subsets.val=auto", "task.modality_dropout=0.3",
    )  # fmt: skip
    assert run.status == 0, run.err
    assert len(list((run.folder / "checkpoints").glob("best-*.ckpt"))) == 2
    with (run.folder / "csv/version_0/metrics.csv").open() as file:
        header = file.readline().strip().split(",")
    assert {"val/loss", "val/accuracy", "val[text]/accuracy", "train/loss", "train/samples_per_second"} <= set(header)
    assert run.metrics["val/accuracy"] <= 1


@pytest.mark.parametrize("modality", ["vision", "audio", "text"])
def test_a_folder_per_class_trains(mm, manifest, tmp_path, modality):
    suffix = {"vision": "png", "audio": "wav", "text": "txt"}[modality]
    for row in range(30):
        folder = tmp_path / "data" / ("red", "green", "blue")[row % 3]
        folder.mkdir(parents=True, exist_ok=True)
        if modality == "text":
            (folder / f"{row}.txt").write_text(f"it is {folder.name}")
        else:
            (folder / f"{row}.{suffix}").write_bytes((manifest.parent / f"media/{row}.{suffix}").read_bytes())
    small = [a for a in TINY if "encoders" not in a or f".{modality}." in a]
    run = mm("train", f"datamodule={modality}", "datamodule.path=data", *small, "trainer.max_epochs=1", "run=folder")
    assert run.status == 0, run.err
    assert list(yaml.safe_load((run.folder / "config.yaml").read_text())["model"]["encoders"]) == [modality]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex:UserWarning")
def test_compiled_equals_eager(mm, manifest, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))  # one that was killed leaves torn files
    args = [*SMALL, f"datamodule.path={manifest}", "trainer.max_epochs=1", "model.encoders.text.dropout=0"]
    args += ["model.encoders.audio.frontend.time_masks=0", "model.encoders.audio.frontend.freq_masks=0"]
    eager, compiled = mm("train", *args, "run=eager"), mm("train", *args, "run=compiled", "compile=true")
    assert compiled.status == 0, compiled.err
    assert compiled.metrics["test/loss"] == pytest.approx(eager.metrics["test/loss"], abs=1e-3)


def test_overfit_sees_one_batch_and_learns_it(mm, manifest):
    run = mm("train", *SMALL, f"datamodule.path={manifest}", "debug=overfit", "trainer.max_epochs=60", LR, "run=over")
    assert run.status == 0, run.err
    with (run.folder / "csv/version_0/metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert losses[-1] < 0.1 < losses[0]


def test_validation_that_never_comes_is_said(mm, manifest):
    args = ["trainer.max_epochs=1", "trainer.check_val_every_n_epoch=2", "run=never"]
    run = mm("train", *SMALL, f"datamodule.path={manifest}", *args)
    assert run.status == 0, run.err
    assert "validation never came: there is no best val/loss, and the last weights are kept" in run.out
    assert run.metrics["test/rows"] == 12


def test_a_run_that_max_steps_stops_says_so_and_how_to_go_on(mm, manifest, recwarn):
    args = ["trainer.max_epochs=3", "trainer.max_steps=2", "run=short"]  # an epoch has more steps
    run = mm("train", *SMALL, f"datamodule.path={manifest}", "datamodule.batch_size=8", *args)
    assert run.status == 0, run.err
    wanted = "trainer.max_steps=2 stopped the run before its first validation: there is no best val/loss, and the last"
    assert wanted in run.out
    assert "run=short resume=true trainer.max_steps=4" in run.out
    assert "max_epochs=" not in run.out
    assert not [one for one in recwarn if "monitored key" in str(one.message)]
    more = mm("train", "run=short", "resume=true", "trainer.max_steps=4")
    assert more.status == 0, more.err
    assert more.metrics["train/steps"] == 4


def test_a_short_epoch_has_its_point_of_the_curve(mm, manifest):
    run = mm("train", *SMALL, f"datamodule.path={manifest}", "trainer.max_epochs=2", "datamodule.batch_size=64")
    assert run.status == 0, run.err
    with next(run.folder.glob("csv/*/metrics.csv")).open() as file:
        assert sum(bool(row.get("train/loss")) for row in csv.DictReader(file)) == 2


def test_without_checkpoints_the_last_weights_are_tested(mm, manifest):
    run = mm(
        "train",
        *SMALL,
        f"datamodule.path={manifest}",
        "~callbacks.checkpoint",
        "~callbacks.periodic_checkpoint",
        "trainer.max_epochs=1",
        "run=none",
    )
    assert run.status == 0, run.err
    assert run.metrics["test/rows"] == 12
    assert not (run.folder / "checkpoints").exists()
