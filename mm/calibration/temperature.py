"""Temperature scaling of probabilities.

Logits are (N, G, C): N rows, G sub-targets and C classes. A sub-target is a part of a target that is predicted
independently, such as one label of several. C = 1 stands for a binary sub-target with one logit. The truth is the true
classes (N, G), with IGNORE for unlabelled sub-targets.
"""

import torch
from scipy.optimize import root_scalar
from torch import Tensor
from torch.nn.functional import pad

from mm.types import IGNORE

IMPOSSIBLE_LOGIT = -1e8  # classes with a lower logit are impossible


def fit_temperature(logits: Tensor, truth: Tensor) -> float:
    """Return the temperature that maximises the log-likelihood of the true classes when the logits are divided by it.

    The log-likelihood is concave in 1 / temperature, so its maximum lies where its slope is zero (Guo et al. 2017,
    https://arxiv.org/abs/1706.04599).

    Args:
        logits: Logits (N, G, C), or (N, G, 1) for binary sub-targets.
        truth: Index of the true class, (N, G); 1 or 0 for binary sub-targets; IGNORE if it is unknown.

    Returns:
        The temperature, which is positive. It is 1 for calibrated logits and larger for those of an overconfident
        model.

    Raises:
        ValueError: If there is no best temperature, because no row is labelled, all labels have the same class, all
            predictions are right, or the predictions are no better than chance.

    Example:
        >>> logits = torch.tensor([[[4.0, 0.0]], [[0.0, 4.0]], [[4.0, 0.0]]])
        >>> round(fit_temperature(logits, torch.tensor([[0], [1], [1]])), 3)
        5.771
    """
    rows = len(truth)
    logits, truth = flatten_answered(logits, truth)
    if not len(truth):
        raise ValueError(f"none of the {rows} rows has a label; choose a split with labelled rows")
    if len(truth.unique()) < 2:
        raise ValueError(f"all {len(truth)} labels are of one class, wanted at least two")
    possible = logits > IMPOSSIBLE_LOGIT
    right = logits.gather(1, truth.unsqueeze(1)).squeeze(1)

    def slope(inverse: float) -> float:
        """Return the mean expected logit minus the mean true logit, which increases with the inverse temperature."""
        chances = (logits * inverse).masked_fill(~possible, -torch.inf).softmax(1)
        return float((chances * logits.masked_fill(~possible, 0.0)).sum(1).mean() - right.mean())

    if slope(0.0) >= 0:
        raise ValueError(f"the {len(truth)} labels are predicted no better than by chance, so that none is high enough")
    if (right == logits.amax(1)).all():
        raise ValueError(f"all {len(truth)} labels are predicted correctly, so that none is low enough; give more rows")
    low, high = 1.0, 1.0
    while slope(low) >= 0:
        low /= 2
    while slope(high) <= 0:
        high *= 2
    return 1 / root_scalar(slope, bracket=(low, high), xtol=1e-12).root


def negative_log_likelihood(logits: Tensor, truth: Tensor) -> float:
    """Return the mean negative log-likelihood of the labelled sub-targets, in nats.

    Args:
        logits: Logits (N, G, C), or (N, G, 1) for binary sub-targets.
        truth: Index of the true class, (N, G); IGNORE if it is unknown.
    """
    logits, truth = flatten_answered(logits, truth)
    return float(torch.nn.functional.cross_entropy(logits, truth))


def flatten_answered(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits (M, C) and true classes (M,) of the M labelled sub-targets, in double precision.

    A binary sub-target gets two logits: 0 and its own logit.
    """
    answered = truth != IGNORE
    logits = logits[answered].double()
    return pad(logits, (1, 0)) if logits.shape[-1] == 1 else logits, truth[answered].long()
