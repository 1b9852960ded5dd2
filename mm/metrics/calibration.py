"""How far stated probabilities are true, the temperature that makes them so, and conformal quantiles.

Logits are (N, G, C): of N rows, G questions with C choices each, or, C = 1, a yes or no; truth is (N, G), IGNORE where
a question has no answer. Choices below NEVER can't be chosen.
"""

import math
from typing import Any

import numpy as np
import torch
from scipy.optimize import root_scalar
from torch import Tensor
from torch.nn.functional import pad
from torchmetrics.functional.classification import binary_calibration_error

from mm.metrics._labels import short
from mm.types import IGNORE

BINS = 15  # of equal width, as Guo 2017
NEVER = -1e8


def log_odds(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """The answered questions, in double precision, a yes or no as two choices. -> (M, C) and (M,)"""
    answered = truth != IGNORE
    logits = logits[answered].double()
    return pad(logits, (1, 0)) if logits.shape[-1] == 1 else logits, truth[answered].long()


def fit_temperature(logits: Tensor, truth: Tensor) -> float:
    """The number that logits are to be divided by so that the log-likelihood is greatest (Guo 2017).

    In 1 / temperature the likelihood is concave: where its slope is zero, it is greatest. Errors: ValueError where it
    is so at no temperature, as all is told right, or nothing better than by chance, or where there is one class only.
    """
    rows = len(truth)
    logits, truth = log_odds(logits, truth)
    if not len(truth):
        raise ValueError(f"none of the {rows} rows is labelled")
    if len(truth.unique()) < 2:
        raise ValueError(f"all {len(truth)} labels are of one class, wanted at least two")
    possible = logits > NEVER
    right = logits.gather(1, truth.unsqueeze(1)).squeeze(1)

    def slope(inverse: float) -> float:
        """Mean logit as the model expects it, above that of the truth; it grows with the inverse temperature."""
        chances = (logits * inverse).masked_fill(~possible, -torch.inf).softmax(1)
        return float((chances * logits.masked_fill(~possible, 0.0)).sum(1).mean() - right.mean())

    if slope(0.0) >= 0:
        raise ValueError(f"the {len(truth)} labels are told no better than by chance, so that none is high enough")
    if (right == logits.amax(1)).all():
        raise ValueError(f"all {len(truth)} labels are told right, so that none is low enough; give more rows")
    low, high = 1.0, 1.0
    while slope(low) >= 0:
        low /= 2
    while slope(high) <= 0:
        high *= 2
    return 1 / root_scalar(slope, bracket=(low, high), xtol=1e-12).root


def fit_platt(odds: Tensor, right: Tensor) -> tuple[float, float]:
    """Temperature and bias of log-odds (N,) of which some are right (N,), 1 or 0: odds / temperature + bias.

    Platt 1999, with his targets, as if one more of each were seen: (rights + 1) / (rights + 2) and 1 / (wrongs + 2).
    Errors: ValueError where all are right, or none, or what is told as more probable is not right more often.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import, and seldom needed

    count, rights = len(right), int(right.sum())
    if rights in (0, count):
        what = "right" if rights else "wrong"
        raise ValueError(f"all {count} of what is told are {what}, wanted some that are not; give more rows")
    high, low = (rights + 1) / (rights + 2), 1 / (count - rights + 2)
    wanted = torch.where(right.bool(), high, low).numpy()
    # Each twice: as right, by how far it is wanted so, and as wrong, by the rest.
    model: Any = LogisticRegression(C=np.inf, max_iter=1000, tol=1e-8)
    weights = np.concatenate([wanted, 1 - wanted])
    scale = max(1.0, float(odds.abs().max()) / 14)  # long texts have log-odds of hundreds, which the solver is slow on
    model.fit((odds.double() / scale).repeat(2).view(-1, 1).numpy(), np.repeat([1, 0], count), sample_weight=weights)
    slope, bias = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope <= 1e-3:
        raise ValueError(f"of {count} told, what is called more probable is not right more often: there is no order")
    return scale / slope, bias


def negative_log_likelihood(logits: Tensor, truth: Tensor) -> float:
    """Mean over the answered questions, in nats."""
    logits, truth = log_odds(logits, truth)
    return float(torch.nn.functional.cross_entropy(logits, truth))


def confidence(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Of one question: the probability of the best choice, and whether it is right; of a yes or no that of a yes.

    (N, C), (N,) -> (M,) in 0..1 and (M,) of 0 and 1
    """
    answered = truth != IGNORE
    logits, truth = logits[answered].double(), truth[answered]
    if logits.shape[-1] == 1:
        return logits.sigmoid().squeeze(-1), truth.long()
    best = logits.softmax(-1).max(-1)
    return best.values, (best.indices == truth).long()


def calibration_error(logits: Tensor, truth: Tensor) -> float:
    """Torchmetrics' expected calibration error of every question with an answer, and the mean of these."""
    pairs = [confidence(logits[:, g], truth[:, g]) for g in range(truth.shape[1])]
    found = [binary_calibration_error(said.float(), right, n_bins=BINS) for said, right in pairs if len(right)]
    return float(torch.stack(found).mean())


def quantile(scores: Tensor, alpha: float) -> float:
    """The ceil((n + 1) (1 - alpha))-th smallest of n scores: one more lies above it with at most alpha (Vovk 2005).

    As split-conformal prediction has it (Lei 2018; Angelopoulos & Bates 2021). (N,), NaN for none. Errors: ValueError
    where there are fewer than 1 / alpha - 1.
    """
    scores = scores[~scores.isnan()]
    above = math.floor((len(scores) + 1) * alpha + 1e-9)  # 29 = 100 * 0.29 is 28.999999999999996
    if above < 1:
        raise ValueError(f"{len(scores)} labelled rows, wanted at least {fewest(alpha)}, which is 1 / {alpha:g} - 1")
    return float(scores.sort().values[len(scores) - above])


def fewest(alpha: float) -> int:
    """The least number of scores that have a quantile."""
    return math.ceil(1 / alpha - 1 - 1e-9)


def coverage(scores: Tensor, quantiles: tuple[float, ...]) -> list[float]:
    """Part of the rows whose truth fits no worse than the quantile, of each question with one. (N, G), (G,)"""
    inside = (scores <= torch.tensor(quantiles, dtype=scores.dtype)).double()
    found = inside.masked_fill(scores.isnan(), torch.nan).nanmean(0)
    return found[~found.isnan()].tolist()


def figure(panels: dict[str, tuple[Tensor, Tensor]]) -> Any:
    """A reliability diagram (DeGroot & Fienberg 1983) for each logits and truth, their titles being the keys.

    Bars are how often a bin is right, hatched is what lies between that and its mean confidence; below: rows by bin.
    """
    from matplotlib.figure import Figure  # slow to import, and seldom drawn

    drawn = Figure(figsize=(1 + 3.6 * len(panels), 4.6), layout="constrained")
    axes = drawn.subplots(2, len(panels), sharex=True, squeeze=False, height_ratios=[4, 1])
    for (title, (logits, truth)), upper, lower in zip(panels.items(), *axes):
        pairs = [confidence(logits[:, g], truth[:, g]) for g in range(truth.shape[1])]
        said, right = (torch.cat(side) for side in zip(*pairs))
        place = (said * BINS).long().clamp(max=BINS - 1)
        count = place.bincount(minlength=BINS)
        seen = count > 0
        mean = (place.bincount(said, BINS) / count)[seen].numpy()
        often = (place.bincount(right.double(), BINS) / count)[seen].numpy()
        left = (torch.arange(BINS) / BINS)[seen].numpy()
        bar: dict[str, Any] = {"width": 1 / BINS, "align": "edge"}
        upper.bar(left, often, color="lightsteelblue", edgecolor="white", label="right", **bar)
        gap = {"facecolor": "none", "edgecolor": "crimson", "hatch": "////", "linewidth": 0.8}
        upper.bar(left, mean - often, bottom=often, label="from there to the mean confidence", **bar, **gap)
        upper.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1)
        upper.set_title(short(title), parse_math=False)
        upper.set(xlim=(0, 1), ylim=(0, 1))
        share = (count / count.sum()).numpy()
        lower.bar((torch.arange(BINS) / BINS).numpy(), share, color="grey", edgecolor="white", **bar)
        lower.set(xlabel="confidence" if logits.shape[-1] > 1 else "probability of a yes", ylim=(0, 1))
    axes[0][0].set_ylabel("part that is right")
    axes[1][0].set_ylabel("rows")
    drawn.legend(*axes[0][0].get_legend_handles_labels(), fontsize=8, ncols=2, loc="outside upper center")
    return drawn
