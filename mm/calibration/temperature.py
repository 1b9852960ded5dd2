"""Temperature scaling of softmax probabilities.

Logits are (N, G, C): of N rows, G questions with C choices each, where C = 1 is the logit of a yes or no. Truth is
(N, G), and IGNORE where a question has no answer.
"""

import torch
from scipy.optimize import root_scalar
from torch import Tensor
from torch.nn.functional import pad

from mm.types import IGNORE

IMPOSSIBLE_LOGIT = -1e8  # choices whose logits lie below it can't be chosen


def fit_temperature(logits: Tensor, truth: Tensor) -> float:
    """Find the temperature by which logits are divided so that the log-likelihood of the truth is greatest.

    In 1 / temperature the log-likelihood is concave, so that its maximum lies where its slope is zero (Guo et al. 2017,
    https://arxiv.org/abs/1706.04599).

    Args:
        logits: (N, G, C), or (N, G, 1) for yes or no.
        truth: (N, G) index of the right choice, 1 or 0 for yes or no, IGNORE where it is unknown.

    Returns:
        The temperature, above 0. Logits that are calibrated have 1, those of an overconfident model more.

    Raises:
        ValueError: If no temperature is best, because no row is labelled, all labels are of one class, all are
            predicted right, or they are predicted no better than by chance.

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
        """Return the expected mean logit minus that of the truth; it grows with the inverse temperature."""
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
    """Return the mean negative log-likelihood of the answered questions, in nats.

    Args:
        logits: (N, G, C), or (N, G, 1) for yes or no.
        truth: (N, G), IGNORE where it is unknown.
    """
    logits, truth = flatten_answered(logits, truth)
    return float(torch.nn.functional.cross_entropy(logits, truth))


def flatten_answered(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return the M answered questions in double precision, a yes or no as two choices: (M, C) and (M,)."""
    answered = truth != IGNORE
    logits = logits[answered].double()
    return pad(logits, (1, 0)) if logits.shape[-1] == 1 else logits, truth[answered].long()
