"""Expected calibration error and reliability diagrams; for the shapes see mm/calibration/temperature.py."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error

from mm.extras import require
from mm.metrics._labels import short
from mm.types import IGNORE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_BINS = 15  # of equal width, as in Guo et al. 2017


def confidence_and_correctness(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return the confidence of the predictions of one sub-target, and whether they are right.

    Args:
        logits: Logits (N, C), or (N, 1) for a binary sub-target.
        truth: Index of the true class, (N,); IGNORE if it is unknown.

    Returns:
        Two tensors (M,) for the M labelled rows: the probability of the predicted class in 0..1, and 1 if this class is
        right, else 0. For a binary sub-target they are the probability of 1 and the true value.
    """
    answered = truth != IGNORE
    logits, truth = logits[answered].double(), truth[answered]
    if logits.shape[-1] == 1:
        return logits.sigmoid().squeeze(-1), truth.long()
    best = logits.softmax(-1).max(-1)
    return best.values, (best.indices == truth).long()


def calibration_error(logits: Tensor, truth: Tensor) -> float:
    """Return the expected calibration error with 15 bins, averaged over the sub-targets that have a label.

    Args:
        logits: Logits (N, G, C), or (N, G, 1) for binary sub-targets.
        truth: Index of the true class, (N, G); IGNORE if it is unknown.
    """
    pairs = [confidence_and_correctness(logits[:, g], truth[:, g]) for g in range(truth.shape[1])]
    errors = [binary_calibration_error(p.float(), right, n_bins=NUM_BINS) for p, right in pairs if len(right)]
    return float(torch.stack(errors).mean())


def draw_reliability(panels: Mapping[str, tuple[Tensor, Tensor]]) -> "Figure":
    """Draw reliability diagrams (DeGroot and Fienberg 1983) side by side.

    Bars show the accuracy of the predictions in each confidence bin. Hatched bars show the gap between the accuracy and
    the mean confidence of the bin. The lower panel shows the fraction of the rows in each bin.

    Args:
        panels: Title of each diagram to its logits (N, G, C) and true classes (N, G).

    Returns:
        A matplotlib figure.
    """
    Figure = require("matplotlib.figure", "plot").Figure  # slow to import, and seldom drawn

    figure = Figure(figsize=(1 + 3.6 * len(panels), 4.6), layout="constrained")
    axes = figure.subplots(2, len(panels), sharex=True, squeeze=False, height_ratios=[4, 1])
    for (title, (logits, truth)), upper, lower in zip(panels.items(), *axes):
        pairs = [confidence_and_correctness(logits[:, g], truth[:, g]) for g in range(truth.shape[1])]
        confidence, right = (torch.cat(side) for side in zip(*pairs))
        bins = (confidence * NUM_BINS).long().clamp(max=NUM_BINS - 1)
        count = bins.bincount(minlength=NUM_BINS)
        filled = count > 0
        mean = (bins.bincount(confidence, NUM_BINS) / count)[filled].numpy()
        accuracy = (bins.bincount(right.double(), NUM_BINS) / count)[filled].numpy()
        left = (torch.arange(NUM_BINS) / NUM_BINS)[filled].numpy()
        bar: dict[str, Any] = {"width": 1 / NUM_BINS, "align": "edge"}
        upper.bar(left, accuracy, color="lightsteelblue", edgecolor="white", label="right", **bar)
        gap = {"facecolor": "none", "edgecolor": "crimson", "hatch": "////", "linewidth": 0.8}
        upper.bar(left, mean - accuracy, bottom=accuracy, label="from there to the mean confidence", **bar, **gap)
        upper.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1)
        upper.set_title(short(title), parse_math=False)
        upper.set(xlim=(0, 1), ylim=(0, 1))
        share = (count / count.sum()).numpy()
        lower.bar((torch.arange(NUM_BINS) / NUM_BINS).numpy(), share, color="grey", edgecolor="white", **bar)
        lower.set(xlabel="confidence" if logits.shape[-1] > 1 else "probability of a yes", ylim=(0, 1))
    axes[0][0].set_ylabel("part that is right")
    axes[1][0].set_ylabel("rows")
    figure.legend(*axes[0][0].get_legend_handles_labels(), fontsize=8, ncols=2, loc="outside upper center")
    return figure
