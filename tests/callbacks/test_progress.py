"""The bar shows the newest loss and speed; output that is no terminal gets a line per epoch."""

import logging
import re
from types import SimpleNamespace

import torch
from lightning import LightningModule, Trainer

from mm.callbacks import progress
from mm.callbacks.progress import Progress


class Task(LightningModule):
    def __init__(self, losses: dict[str, torch.Tensor]):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.losses = losses
        self.asked = 0

    def train_losses(self):
        self.asked += 1
        return self.losses

    def training_step(self, batch, batch_idx):
        if batch_idx == 3:
            self.log("train/samples_per_second", 123.4)
            self.log("val/accuracy", 0.5)
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def bar_of(trainer: Trainer) -> str:
    (bar,) = [c for c in trainer.callbacks if isinstance(c, Progress)]
    return bar.train_progress_bar.postfix


def test_shows_loss_and_speed_and_asks_when_drawn(tmp_path, capsys):
    task = Task({"train/loss": torch.tensor(0.75), "train/a/loss": torch.tensor(9.0)})
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[Progress(refresh_rate=10, interactive=True)],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(task, torch.utils.data.DataLoader(torch.zeros(40, 1)))
    assert bar_of(trainer) == "loss=0.750, samples/s=123"
    assert task.asked <= 40 // 10 + 1  # and once at the epoch's end


def test_a_skipped_batch_has_no_loss():
    trainer = SimpleNamespace(callback_metrics={}, progress_bar_metrics={}, loggers=[])
    assert Progress().get_metrics(trainer, Task({})) == {}


def fit(tmp_path, **settings):
    """Train two epochs of forty batches of a task whose loss is 0.75."""
    task = Task({"train/loss": torch.tensor(0.75)})
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        callbacks=[Progress(**settings)],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(task, torch.utils.data.DataLoader(torch.zeros(40, 1)))


def test_output_that_is_no_terminal_gets_a_line_per_epoch(tmp_path, capfd, caplog):
    with caplog.at_level(logging.INFO, "mm"):
        fit(tmp_path)
    lines = [record.getMessage() for record in caplog.records if record.name == "mm"]
    assert [re.sub(r"[\d.]+ s$", "T s", line) for line in lines] == [
        "epoch 1/2, val/accuracy 0.5, T s",
        "epoch 2/2, val/accuracy 0.5, T s",
    ]
    captured = capfd.readouterr()
    assert "it/s" not in captured.out + captured.err


def test_a_long_epoch_gets_lines_in_between(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with caplog.at_level(logging.INFO, "mm"):
        fit(tmp_path)
    lines = [record.getMessage() for record in caplog.records if record.name == "mm"]
    assert lines[0] == "epoch 1, batch 1/40: loss 0.75"
    assert lines[41] == "epoch 2, batch 1/40: loss 0.75, samples/s 123"


def test_a_terminal_gets_a_bar_and_no_line(tmp_path, capfd, caplog):
    with caplog.at_level(logging.INFO, "mm"):
        fit(tmp_path, interactive=True)
    assert not [record for record in caplog.records if record.name == "mm"]
    captured = capfd.readouterr()
    assert "it/s" in captured.out + captured.err


def test_the_monitored_metric_is_in_the_line():
    measured = {f"val/m{i}": torch.tensor(float(i)) for i in range(9)}
    trainer = SimpleNamespace(
        callback_metrics=measured, checkpoint_callback=SimpleNamespace(monitor="val/m8"), max_epochs=-1, current_epoch=1
    )
    line = Progress(interactive=False).describe_epoch(trainer)
    assert line.startswith("epoch 2, val/m8 8, val/m0 0, val/m1 1, val/m2 2, val/m3 3, ")
