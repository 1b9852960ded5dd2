"""Models are built and trained from Python, with the numbers of the command."""

import csv
import random
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from lightning import LightningDataModule, Trainer

import mm
from mm.checkpoint import weights
from mm.modalities import modality_names

WORDS = ("zero", "one", "two")
SHORT = {"max_epochs": 2, "progress_bar": False}


def rows(count: int = 60) -> list[dict[str, str]]:
    return [{"text": f"press {WORDS[n % 3]} {n}", "digit": f"d{n % 3}"} for n in range(count)]


@pytest.fixture
def mm_command(request):
    """The command; its fixture has the name of the package."""
    return request.getfixturevalue("mm")


@pytest.fixture
def data():
    return mm.Manifest(rows(), targets={"target": "digit"}, num_workers=0)


@pytest.fixture
def model(data):
    return mm.build(data.spec, text="hashed_ngrams", embed_dim=16)


def test_defaults_are_those_of_the_command(data):
    model = mm.build(data.spec)
    assert [type(part).__name__ for part in model.encoders.values()] == ["TextTransformer"]
    assert type(model.fusion).__name__ == "ConcatFusion"
    assert [type(part).__name__ for part in model.heads.values()] == ["ClassificationHead"]


def test_parts_are_options_or_objects(data, model):
    other = mm.build(data.spec, text=model.encoders["text"], fusion=model.fusion, target="classification")
    assert other.encoders["text"] is model.encoders["text"]
    assert other.fusion is model.fusion


def test_unknown_names_are_errors_with_the_nearest_one(data):
    with pytest.raises(ValueError, match="no input or target 'texts', only text, target; did you mean 'text'"):
        mm.build(data.spec, texts="hashed_ngrams")
    with pytest.raises(ValueError, match="text: got 'transformr', wanted one of hashed_.*did you mean 'transformer'"):
        mm.build(data.spec, text="transformr")
    with pytest.raises(ValueError, match="text: 'bag' is now 'hashed_ngrams'"):
        mm.build(data.spec, text="bag")


def test_seed_decides_the_weights_and_the_random_state_stays(data):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, third = (mm.build(data.spec, text="hashed_ngrams", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    weight = "projections.text.weight"
    assert torch.equal(first.state_dict()[weight], second.state_dict()[weight])
    assert not torch.equal(first.state_dict()[weight], third.state_dict()[weight])


def test_weights_are_bit_for_bit_those_of_the_command(mm_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open("a.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "digit"])
        writer.writeheader()
        writer.writerows(rows())
    run = mm_command(
        "train", "datamodule=manifest", "datamodule.path=a.csv", "datamodule.columns.target=digit", "run=r",
        "datamodule.num_workers=0", "model/encoders/text=hashed_ngrams", "model.embed_dim=16", "trainer.max_epochs=2",
        "trainer.accelerator=cpu",
    )  # fmt: skip
    assert run.status == 0, run.err
    data = mm.Manifest("a.csv", {"target": "digit"}, num_workers=0)
    report = mm.train(
        mm.build(data.spec, text="hashed_ngrams", embed_dim=16), data, overrides=["trainer.accelerator=cpu"], **SHORT
    )
    theirs = weights(tmp_path / "outputs/r/model")
    ours = report.model.model.state_dict()
    assert list(theirs) == sorted(ours)
    for name, x in theirs.items():
        assert torch.equal(ours[name], x), name


def test_arguments_and_global_state_stay_as_they_were(data, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    filters, handler = list(warnings.filters), signal.getsignal(signal.SIGINT)
    first, second = (mm.train(model, data, **SHORT) for _ in range(2))
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])
    assert warnings.filters == filters
    assert signal.getsignal(signal.SIGINT) is handler
    assert not data.transforms or data.transforms is not first.model.transforms
    same = [name for name in first.metrics if name != "train/duration_s"]
    assert [first.metrics[name] for name in same] == pytest.approx([second.metrics[name] for name in same], nan_ok=True)
    assert not list(tmp_path.iterdir())


def test_run_has_a_folder_with_checkpoints_metrics_and_model(data, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = mm.train(model, data, run="first", **SHORT)
    assert report.folder == tmp_path / "outputs/first"
    assert {file.name for file in report.folder.iterdir()} >= {"checkpoints", "metrics.json", "model"}
    assert mm.load(report.folder / "model").predict({"text": "press two"})["target"]["prediction"] in ("d0", "d1", "d2")
    with pytest.raises(ValueError, match="first"):
        mm.train(model, data, run="first", **SHORT)


def test_model_is_saved_and_loaded_without_lightning_and_hydra(data, model, tmp_path):
    report = mm.train(model, data, **SHORT)
    expected = report.model.predict({"text": "press two"})["target"]
    report.model.save(tmp_path / "model")
    code = (
        "import sys, mm\n"
        f"answer = mm.load({str(tmp_path / 'model')!r}).predict({{'text': 'press two'}})['target']\n"
        "assert not {'lightning', 'hydra', 'omegaconf'} & set(sys.modules), sorted(sys.modules)\n"
        "print(answer)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(expected)


def test_own_trainer_takes_the_module_and_the_data(data, model):
    task = mm.lightning_module(model, data.spec)
    Trainer(
        max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, limit_val_batches=0, accelerator="cpu", use_distributed_sampler=False,
    ).fit(task, mm.bind_data(data, model))  # fmt: skip
    assert "train/loss" in task.train_losses()


def test_data_without_an_input_of_the_model_is_an_error(model):
    other = mm.Manifest([{"words": "a", "digit": "b"}] * 20, inputs={"other": {"column": "words", "modality": "text"}})
    with pytest.raises(ValueError, match="has no input 'text' of the model, only other"):
        mm.bind_data(other, model)


def test_public_names_are_there_and_complete_in_a_notebook():
    for name in mm.__all__:
        assert getattr(mm, name) is not None
        assert name in dir(mm)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = mm.lod
    assert modality_names()[:4] == ("text", "vision", "audio", "tabular")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"max_epochs": 0}, "trainer.max_epochs: got 0"), ({"lr": -1.0}, "task.optimizer: Invalid learning rate")],
)
def test_settings_out_of_range_are_errors_that_name_the_key(data, model, settings, message):
    with pytest.raises(ValueError, match=message):
        mm.train(model, data, **{"progress_bar": False, "max_epochs": 1, **settings})


def test_loggers_may_be_named(data, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"max_steps": 2, "progress_bar": False, "overrides": ["trainer.accelerator=cpu"]}
    with pytest.raises(ValueError, match="logger: 'csv' writes into the run folder; give the run a name"):
        mm.train(model, data, logger="csv", **settings)
    with pytest.raises(ValueError, match="logger: got 'wandbb', wanted one of csv, .*did you mean 'wandb'"):
        mm.train(model, data, logger="wandbb", run="first", **settings)
    with pytest.raises(ValueError, match="overrides: got 'logger=csv'; choose loggers with the argument logger"):
        mm.train(model, data, run="first", **settings | {"overrides": ["logger=csv"]})
    run = mm.train(model, data, logger=["csv"], run="first", **settings)
    assert "test/accuracy" in (tmp_path / "outputs/first/csv/version_0/metrics.csv").read_text()
    assert run.metrics["test/accuracy"] >= 0


class Plain(LightningDataModule):
    """A data module that has what Lightning asks for, and nothing else."""

    def train_dataloader(self):
        return []


def test_a_plain_data_module_is_refused_wherever_data_enters(data, model):
    trained = mm.train(model, data, max_steps=1, progress_bar=False, overrides=["trainer.accelerator=cpu"]).model
    uses = {
        "train": lambda plain: mm.train(model, plain),
        "bind_data": lambda plain: mm.bind_data(plain, model),
        "check_data": mm.check_data,
        "evaluate": lambda plain: mm.evaluate(trained, plain),
        "calibrate": lambda plain: mm.calibrate(trained, plain),
        "embed": lambda plain: mm.embed(trained, plain, "embeddings.parquet"),
        "probe": lambda plain: mm.probe(trained, plain, mm.evaluation.Probes(linear_probe="digit")),
    }
    for name, use in uses.items():
        with pytest.raises(ValueError, match=r"^data: Plain lacks .*spec.*own_dataset.md"):
            use(Plain())
            pytest.fail(name)


def test_a_config_of_a_plain_data_module_is_refused(mm_command, tmp_path):
    (tmp_path / "my_conf/datamodule").mkdir(parents=True)
    (tmp_path / "my_conf/datamodule/plain.yaml").write_text("_target_: lightning.LightningDataModule\n")
    ran = mm_command("train", "--config-dir", "my_conf", "datamodule=plain", "run=plain")
    assert ran.status == 2
    assert "mm: data: LightningDataModule lacks spec, source" in ran.err
    assert "Traceback" not in ran.err
