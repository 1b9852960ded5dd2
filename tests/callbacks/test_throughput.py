"""Speed is logged when the loggers listen, and counts what is real."""

import csv
from types import SimpleNamespace

import pytest
import torch
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from mm.callbacks.throughput import Counter, Throughput
from mm.types import Batch, Features, InputData


class Task(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Data(LightningDataModule):
    def __init__(self, modalities: dict[str, str]):
        super().__init__()
        inputs = {name: InputData(modality=kind) for name, kind in modalities.items()}
        self.spec = SimpleNamespace(inputs=inputs)
        self.transforms = {name: SimpleNamespace(sample_rate=4) for name in modalities}

    def train_dataloader(self):
        batches = [batch(list(self.transforms))] * 3  # three batches an epoch
        return torch.utils.data.DataLoader(batches, batch_size=None)


MASKS = {
    "text": torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 0]]).bool(),  # 5 tokens
    "question": torch.tensor([[1, 1], [0, 0], [0, 0]]).bool(),  # 2 more
    "vision": torch.tensor([[1], [1], [0]]).bool(),
    "audio": torch.tensor([[1, 1, 1, 1, 1, 1], [0] * 6, [0] * 6]).bool(),  # 6 samples at 4 Hz
}
KINDS = {"text": "text", "question": "text", "vision": "vision", "audio": "audio"}


def batch(names: list[str]) -> Batch:
    """Three rows, one of them filler."""
    masks = {name: MASKS[name] for name in names}
    return Batch({name: mask.float() for name, mask in masks.items()}, masks, {}, torch.tensor([4, 7, -1]), {})


def logged(folder, monkeypatch, modalities: dict[str, str], epochs: int = 4, accumulate: int = 1) -> list[dict]:
    clock = iter(range(10_000))
    monkeypatch.setattr("mm.callbacks.throughput.time.perf_counter", lambda: float(next(clock)))
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        log_every_n_steps=2,
        accumulate_grad_batches=accumulate,
        callbacks=[Throughput()],
        logger=CSVLogger(folder, name=None, version=""),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Task(), datamodule=Data(modalities))
    with (folder / "metrics.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize(("accumulate", "steps"), [(1, [1, 3, 5, 7, 9, 11]), (2, [1, 3, 5, 7])])
def test_logged_at_every_step_that_the_loggers_take(tmp_path, monkeypatch, accumulate, steps):
    rows = logged(tmp_path, monkeypatch, KINDS, accumulate=accumulate)
    assert [row["step"] for row in rows] == steps
    for row in rows:  # of a batch: 2 samples, 7 text tokens and no others, 1.5 seconds
        assert row["train/tokens_per_second"] / row["train/samples_per_second"] == pytest.approx(7 / 2)
        assert row["train/audio_seconds_per_second"] / row["train/samples_per_second"] == pytest.approx(1.5 / 2)


def test_pictures_have_neither_tokens_nor_seconds(tmp_path, monkeypatch):
    for row in logged(tmp_path, monkeypatch, {"vision": "vision"}):
        assert {name for name in row if name.startswith("train/")} == {"train/samples_per_second"}


def test_sound_without_its_waveform_is_not_counted():
    data = Data({"audio": "audio"})
    x = torch.zeros(3, 6, 1)
    features = Features(x, MASKS["audio"], x[:, 0], x.expand(3, 6, 2))
    computed = batch(["audio"])._replace(inputs={"audio": features})
    counter = Counter({"audio": "audio"}, data.transforms)
    assert counter.count(computed) == (2, 0, 0.0)
    assert counter.count(batch(["audio"]), counter.count(computed)) == (4, 0, 1.5)
