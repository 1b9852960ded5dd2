"""OGM-GE: reduce the gradient of an encoder that is ahead of the others, and add noise to it (Peng 2022)."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.distributed.tensor import DTensor

from mm.data_source import data_source


class GradientModulation(Callback):
    """Scale down the gradients of encoders whose input predicts better than the others (OGM-GE, Peng 2022).

    The inputs are compared by the predictions of their unimodal heads, see `task.unimodal_probes`. The paper compares
    two inputs; here each input is compared with the mean of the others. The method is made for SGD. An optimizer that
    divides a gradient by its own magnitude, as Adam does, cancels a constant factor; a warning is shown in this case.

    Args:
        alpha: Strength of the modulation: the further an input is ahead of the others, the smaller the gradient of its
            encoder.
        noise: Whether Gaussian noise with the standard deviation of each gradient is added.
        from_epoch: First epoch with modulation, from 0.
        to_epoch: Last epoch with modulation; None: the last epoch of the run.

    Raises:
        ValueError: If the inputs do not have unimodal heads, if no head predicts a class, or if there is only one
            encoder.
    """

    def __init__(self, alpha: float = 0.3, noise: bool = True, from_epoch: int = 0, to_epoch: int | None = None):
        if not alpha > 0:
            raise ValueError(f"callbacks.gradient_modulation.alpha: got {alpha}, wanted more than 0")
        self.alpha = alpha
        self.noise = noise
        self.from_epoch = from_epoch
        self.to_epoch = to_epoch
        self.heads: list[str] = []  # heads that predict a class
        self.seen: dict[str, Tensor] = {}  # encoder to (sum of true-class scores, rows) since the last step

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
        # Every process needs the same noise; on_train_batch_start seeds each process differently.
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
    """Sum the predicted probabilities of the true classes.

    Args:
        probability: Probabilities, (N, C).
        truth: Class indices, (N,).

    Returns:
        The sum and N, as one tensor (2,).
    """
    scores = probability.gather(1, truth.unsqueeze(1))
    return torch.stack([scores.sum(), scores.new_tensor(len(truth))])


def coefficients(score: Tensor, count: Tensor, alpha: float) -> Tensor:
    """Compute the factor on the gradient of each of M encoders.

    The ratio of an encoder is its mean score divided by the mean of those of the others. If it is above 1, the factor
    is 1 - tanh(alpha * ratio), otherwise 1. Encoders without rows are left out of the comparison.

    Args:
        score: Sum of the scores of each encoder, (M,).
        count: Number of rows of each encoder, (M,).
        alpha: Strength of the modulation.

    Returns:
        The factors, (M,).
    """
    there = count > 0
    mean = score / torch.where(there, count, 1)  # 0 where there is none
    others = (mean.sum() - mean) / (there.sum() - there.int()).clamp(min=1)
    ahead = there & (others > 0) & (mean > others)
    return torch.where(ahead, 1 - torch.tanh(alpha * mean / torch.where(ahead, others, 1)), 1.0)


def modulate(gradient: Tensor, factor: Tensor, generator: torch.Generator | None) -> None:
    """Scale a gradient in place and optionally add noise with the standard deviation of the unscaled gradient.

    Args:
        gradient: The gradient.
        factor: The factor, a scalar tensor.
        generator: Random generator of the noise; None: no noise.
    """
    if generator is None:
        gradient.mul_(factor)
        return
    noise = torch.randn(gradient.shape, generator=generator, device=gradient.device, dtype=gradient.dtype)
    noise *= gradient.std(correction=0)
    gradient.mul_(factor).add_(noise)
