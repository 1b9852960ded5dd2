"""Speed is logged when the loggers listen, and counts what is real."""

import csv

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from mm.callbacks.throughput import Throughput
from mm.types import Batch


class Task(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def batch() -> Batch:
    """Three rows, one of them filler; 5 text tokens and 2 pictures that are real."""
    masks = {
        "text": torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 0]]).bool(),
        "vision": torch.tensor([[1], [1], [0]]).bool(),
    }
    return Batch({}, masks, {}, torch.tensor([4, 7, -1]), {})


@pytest.mark.parametrize(("accumulate", "epochs", "steps"), [(1, 4, [1, 3, 5, 7, 9, 11]), (2, 4, [1, 3, 5, 7])])
def test_logged_at_every_step_that_the_loggers_take(tmp_path, monkeypatch, accumulate, epochs, steps):
    clock = iter(range(10_000))
    monkeypatch.setattr("mm.callbacks.throughput.time.perf_counter", lambda: float(next(clock)))
    logger = CSVLogger(tmp_path, name=None, version="")
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        log_every_n_steps=2,
        accumulate_grad_batches=accumulate,
        callbacks=[Throughput()],
        logger=logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = torch.utils.data.DataLoader([batch()] * 3, batch_size=None)  # three batches an epoch
    trainer.fit(Task(), loader)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]
    assert [row["step"] for row in rows] == steps
    for row in rows:
        assert row["train/tokens_per_second"] / row["train/samples_per_second"] == pytest.approx(7 / 2)
