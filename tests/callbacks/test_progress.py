"""The bar shows the newest loss and speed, and costs the loop nothing in between."""

from types import SimpleNamespace

import torch
from lightning import LightningModule, Trainer

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
        callbacks=[Progress(refresh_rate=10)],
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
