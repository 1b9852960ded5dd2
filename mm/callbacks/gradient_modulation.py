"""OGM-GE: the gradient of an encoder that is ahead of the others is made smaller, under noise (Peng 2022)."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.distributed.tensor import DTensor

from mm.data_source import data_source


class GradientModulation(Callback):
    """Scale the gradients of encoders whose input is ahead of the others, in every step (OGM-GE, Peng 2022).

    How far an input is ahead is measured by its own heads, see `task.unimodal_probes`. The paper compares two inputs;
    here each is compared with the mean of the others. The method is made for SGD: an optimizer that divides a gradient
    by its own size, as Adam does, undoes a constant factor, and a warning says so.

    Args:
        alpha: Strength: the further an input's own heads are ahead of the others', the smaller its encoder's gradient.
        noise: Whether Gaussian noise with the standard deviation of each gradient is added.
        from_epoch: First epoch.
        to_epoch: Last epoch; None: that of the run.

    Raises:
        ValueError: If there are no such heads, no head of classes, or nothing to compare.
    """

    def __init__(self, alpha: float = 0.3, noise: bool = True, from_epoch: int = 0, to_epoch: int | None = None):
        if not alpha > 0:
            raise ValueError(f"callbacks.gradient_modulation.alpha: got {alpha}, wanted more than 0")
        self.alpha = alpha
        self.noise = noise
        self.from_epoch = from_epoch
        self.to_epoch = to_epoch
        self.heads: list[str] = []  # those that tell a class
        self.seen: dict[str, Tensor] = {}  # encoder -> (score of the true class, rows) since the last step

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        task: Any = pl_module
        if stage != "fit":
            return
        if set(task.unimodal_loss_weight) != set(task.model.inputs):
            raise ValueError(
                "callbacks=gradient_modulation compares the inputs by heads of their own; set "
                f"task.unimodal_probes=true: the inputs with heads are {', '.join(task.unimodal_loss_weight) or 'none'}"
            )
        targets = data_source(trainer).spec.targets
        self.heads = [name for name in task.model.heads if targets[name].kind == "class"]
        if not self.heads:
            raise ValueError("callbacks=gradient_modulation compares the inputs by classes, and no head tells one")
        if len(task.model.encoders) < 2:
            raise ValueError("callbacks=gradient_modulation: there is one encoder, nothing to compare; leave it out")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if any(isinstance(p, DTensor) for p in pl_module.parameters()):
            raise ValueError("callbacks=gradient_modulation: its noise needs whole gradients; use trainer=ddp")
        for optimizer in trainer.optimizers:
            if not isinstance(optimizer, torch.optim.SGD):
                rank_zero_warn(
                    f"callbacks=gradient_modulation: {type(optimizer).__name__} divides each gradient by its own size, "
                    "so that a constant factor changes no step, and only the noise and the factor's changes act; the "
                    "paper's is task/optimizer=sgd"
                )

    def at_work(self, epoch: int) -> bool:
        return self.from_epoch <= epoch and (self.to_epoch is None or epoch <= self.to_epoch)

    @torch.no_grad()
    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        task: Any = pl_module
        if not self.at_work(trainer.current_epoch):
            return
        for name, (output, targets) in task.alone.items():
            encoder = task.model.shared_encoders.get(name, name)
            for target in self.heads:
                score = true_score(*output.predictions[target].metric_inputs(targets[target]))
                self.seen[encoder] = self.seen.get(encoder, 0) + score

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        task: Any = pl_module
        if not self.seen:
            return
        seen = torch.stack(list(self.seen.values()))  # (encoders, 2)
        if trainer.world_size > 1:
            seen = trainer.strategy.reduce(seen, reduce_op="sum")
        factors = dict(zip(self.seen, coefficients(seen[:, 0], seen[:, 1], self.alpha)))
        self.seen = {}
        # The same numbers in every process; on_train_batch_start seeds each with its own.
        seed = hash((task.seed, trainer.global_step)) & 0xFFFFFFFF
        generator = torch.Generator(task.device).manual_seed(seed)
        for name, factor in factors.items():
            for parameter in task.model.encoders[name].parameters():
                if parameter.grad is not None:
                    modulate(parameter.grad, factor, generator if self.noise else None)
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (trainer.global_step + 1) % every == 0:
            task.log_dict({f"train[{name}]/ogm_coefficient": factor for name, factor in factors.items()})


def true_score(probability: Tensor, truth: Tensor) -> Tensor:
    """(N, C), (N,) -> (2,) sum of the true classes' probabilities, N"""
    scores = probability.gather(1, truth.unsqueeze(1))
    return torch.stack([scores.sum(), scores.new_tensor(len(truth))])


def coefficients(score: Tensor, count: Tensor, alpha: float) -> Tensor:
    """1 - tanh(alpha * ratio) where its ratio is above 1, else 1: (M,), (M,) -> (M,) of M encoders.

    ratio: the mean score of an encoder over the mean of the others'. One that no row has takes no part.
    """
    there = count > 0
    mean = score / torch.where(there, count, 1)  # 0 where there is none
    others = (mean.sum() - mean) / (there.sum() - there.int()).clamp(min=1)
    ahead = there & (others > 0) & (mean > others)
    return torch.where(ahead, 1 - torch.tanh(alpha * mean / torch.where(ahead, others, 1)), 1.0)


def modulate(gradient: Tensor, factor: Tensor, generator: torch.Generator | None) -> None:
    """In place; with a generator, noise as large as the gradient's deviation before it is scaled is added."""
    if generator is None:
        gradient.mul_(factor)
        return
    noise = torch.randn(gradient.shape, generator=generator, device=gradient.device, dtype=gradient.dtype)
    noise *= gradient.std(correction=0)
    gradient.mul_(factor).add_(noise)
