"""Names of the learning rates in the log."""

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from mm.callbacks.learning_rate import LearningRate

name_rates = LearningRate().name_rates


def optimizer(*rates: float) -> torch.optim.Optimizer:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate, "weight_decay": i} for i, rate in enumerate(rates)]
    return torch.optim.AdamW(groups, lr=0.1)


def test_one_rate_has_one_name_whatever_decays():
    assert name_rates(optimizer(0.1)) == ["lr"]
    assert name_rates(optimizer(0.1, 0.1)) == ["lr", "lr"]


def test_several_rates_are_named_by_their_factors_at_every_step():
    chosen = optimizer(0.1, 0.01, 0.1, 0.0)
    schedule = LambdaLR(chosen, lambda step: 1 / (1 + step))
    wanted = ["lr/x1", "lr/x0.1", "lr/x1", "lr/x0"]
    assert name_rates(chosen) == wanted
    chosen.step()
    schedule.step()
    assert chosen.param_groups[0]["lr"] == 0.05
    assert name_rates(chosen) == wanted


def test_lightning_logs_them_under_these_names(tmp_path):
    from lightning import LightningModule, Trainer
    from lightning.pytorch.loggers import CSVLogger

    class Small(LightningModule):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(1, 1), nn.Linear(1, 1)

        def training_step(self, batch, batch_idx):
            return self.b(self.a(batch)).sum()

        def configure_optimizers(self):
            groups = [{"params": self.a.parameters(), "lr": 0.1}, {"params": self.b.parameters(), "lr": 0.05}]
            return torch.optim.SGD(groups, lr=0.1)

    logger = CSVLogger(tmp_path)
    trainer = Trainer(
        max_steps=2, accelerator="cpu", logger=logger, callbacks=[LearningRate(logging_interval="step")],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(Small(), torch.utils.data.DataLoader(torch.ones(2, 1)))
    found = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()
    assert found[0] == "lr/x0.5,lr/x1,step"
    assert found[1] == "0.05,0.1,0"
