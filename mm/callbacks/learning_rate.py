"""Logging of the learning rate of every step, under short names."""

from torch.optim import Optimizer

from mm._compat.lightning import NamedRateMonitor


class LearningRate(NamedRateMonitor):
    """Log the learning rate as `lr`, or, if parameter groups have different rates, each rate as `lr/xFACTOR`.

    FACTOR is the factor on the optimizer's learning rate that `task.lr_scale` and `task.layer_decay` give, as in
    `lr/x0.1`. Groups that differ only in their weight decay have the same rate, which is logged once.

    Args:
        logging_interval: "step", "epoch", or None for the interval of the schedule.
        log_momentum: Whether to log the momentum too.
        log_weight_decay: Whether to log the weight decay too.
    """

    def name_rates(self, optimizer: Optimizer) -> list[str]:
        """Return the name under which the learning rate of each parameter group is logged."""
        rates = [group.get("initial_lr", group["lr"]) for group in optimizer.param_groups]
        if len(set(rates)) == 1:
            return ["lr"] * len(rates)
        return [f"lr/x{rate / optimizer.defaults['lr']:.4g}" for rate in rates]
