"""Scores of classical models: prior, loss, calibration on validation rows, late fusion, and metrics.

Scores of a target of C classes are log-probabilities (N, C), those of C labels log-odds (N, C), those of a number the
number itself (N, 1).
"""

import logging
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy.special import log_softmax
from torch import Tensor
from torchmetrics import Metric

from mm.metrics.classification_report import ClassificationReport
from mm.metrics.label_average_precision import LabelAveragePrecision
from mm.metrics.regression import MeanAbsoluteError, MeanSquaredError, R2Score, SpearmanCorrCoef
from mm.predictions import Bernoulli, Categorical, Prediction, Scalar
from mm.types import IGNORE, TargetData

logger = logging.getLogger("mm")
SUPPORTED = ("class", "labels", "number")  # kinds of targets
TEMPERATURES = tuple(2.0 ** np.arange(-6, 6.5, 0.5))
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # of an input in the late fusion
ROUNDS = 3  # passes over the inputs in which their weights are chosen


def default_metrics(target: TargetData) -> dict[str, Metric]:
    """Return the metrics that the default head of a target reports, as in conf/model/heads.

    Args:
        target: The target, whose kind is one of SUPPORTED.
    """
    import torchmetrics.classification as classification  # slow to import

    count = len(target.classes)
    if target.kind == "number":
        return {
            "mae": MeanAbsoluteError(),
            "rmse": MeanSquaredError(squared=False),
            "r2": R2Score(),
            "spearman": SpearmanCorrCoef(),
        }
    if target.kind == "labels":
        return {
            "f1": classification.MultilabelF1Score(count, average="macro", ignore_index=IGNORE),
            "average_precision": LabelAveragePrecision(count),
            "exact_match": classification.MultilabelExactMatch(count, ignore_index=IGNORE),
        }
    return {
        "accuracy": classification.MulticlassAccuracy(count, average="micro"),
        "calibration_error": classification.MulticlassCalibrationError(count),
        "report": ClassificationReport(target.classes),
    }


def to_prediction(kind: str, scores: np.ndarray) -> Prediction:
    """Return scores as the prediction that a head of this kind of target returns."""
    tensor = torch.from_numpy(scores)
    if kind == "number":
        return Scalar(tensor[:, 0])
    return Categorical(tensor) if kind == "class" else Bernoulli(tensor)


def measure_scores(kind: str, scores: np.ndarray, target: Tensor, metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Compute metrics of some rows, without those of single classes.

    Args:
        kind: Kind of the target.
        scores: Scores of the rows, (N, C).
        target: The target, (N, ...); unlabelled rows do not count.
        metrics: Metric name to metric, which is not changed.

    Returns:
        Metric name to value, with the number of labelled rows as `rows`; empty if there are none.
    """
    inputs = to_prediction(kind, scores).metric_inputs(target)
    count = len(inputs[1])
    results: dict[str, float] = {}
    for name, metric in metrics.items() if count else ():
        computed = local_copy(metric)
        try:
            with warnings.catch_warnings():
                # Labels without a positive row; the test of the model warns of them as well.
                warnings.simplefilter("ignore", UserWarning)
                computed.update(*inputs)
                value = computed.compute()
        except (ValueError, RuntimeError, TypeError) as error:  # R2 of a single row; metrics of a user's own head
            logger.info(f"{name} of a baseline of {count} rows: {error}")
            continue
        values = value if isinstance(value, dict) else {name: value}
        results |= {key: float(one) for key, one in values.items() if "/" not in key}
    return results | ({"rows": count} if count else {})


def local_copy(metric: Metric) -> Metric:
    """Return an empty copy of a metric that is computed in this process alone.

    In a distributed training, `compute` of torchmetrics would wait for the other processes, which fit no baseline.
    """
    copy = metric.clone().cpu()
    for part in copy.modules():
        if isinstance(part, Metric):
            part.distributed_available_fn = lambda: False
    copy.reset()
    return copy


def prior_scores(kind: str, target: np.ndarray, count: int) -> np.ndarray:
    """Return the scores of a row without any input, from training rows: class frequencies, or the mean.

    Args:
        kind: Kind of the target.
        target: Target of the labelled training rows, (N,) or (N, C).
        count: Number of classes C; 1 for a number.

    Returns:
        Scores, (C,).
    """
    if kind == "number":
        return np.array([target.mean()])
    if kind == "class":
        return np.log((np.bincount(target, minlength=count) + 0.5) / (len(target) + 0.5 * count))
    positive, negative = (target == 1).sum(0) + 0.5, (target == 0).sum(0) + 0.5
    return np.log(positive / negative)


def mean_loss(kind: str, scores: np.ndarray, target: np.ndarray) -> float:
    """Return the mean log loss of classes or labels, or the mean squared error of numbers.

    Args:
        kind: Kind of the target.
        scores: Scores, (N, C).
        target: Target of labelled rows, (N,) or (N, C).
    """
    if kind == "number":
        return float(np.square(scores[:, 0] - target).mean())
    if kind == "class":
        return float(-log_softmax(scores, axis=1)[np.arange(len(target)), target].mean())
    known = target != IGNORE
    return float((np.logaddexp(0, np.where(target == 1, -scores, scores)) * known).sum() / known.sum())


def right_share(kind: str, scores: np.ndarray, target: np.ndarray) -> float:
    """Return what a setting of a model is chosen by, higher is better: the accuracy, else the negative `mean_loss`."""
    if kind == "class":
        return float((scores.argmax(1) == target).mean())
    return -mean_loss(kind, scores, target)


def calibrate_scores(kind: str, scores: np.ndarray, chosen: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Divide the scores of classes or labels by a temperature with the least loss on some rows (Guo et al. 2017).

    Args:
        kind: Kind of the target; numbers are returned unchanged.
        scores: Scores of all rows, (N, C).
        chosen: Indices of the validation rows, (M,); if empty, the scores are only normalised.
        target: Target of these, (M,) or (M, C).
    """
    if kind == "number":
        return scores
    if len(chosen):
        losses = [mean_loss(kind, scores[chosen] / temperature, target) for temperature in TEMPERATURES]
        scores = scores / TEMPERATURES[int(np.argmin(losses))]
    return log_softmax(scores, axis=1) if kind == "class" else scores


def fuse_scores(
    kind: str, prior: np.ndarray, parts: Sequence[np.ndarray], chosen: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, list[float]]:
    """Return the scores of all inputs together: the prior, and what each input adds to it times a weight.

    An input that is absent from a row has the prior as its score, and so adds nothing. With weights of 1 this is the
    naive Bayes rule for classes and labels.

    Args:
        kind: Kind of the target.
        prior: Scores of a row without any input, (C,).
        parts: Scores of each of K inputs, (N, C).
        chosen: Indices of the validation rows by which the weights are chosen, (M,); if empty, they stay equal.
        target: Target of these, (M,) or (M, C).

    Returns:
        The scores, (N, C), and the weight of each input.
    """
    evidence = np.stack([part - prior for part in parts])  # (K, N, C)
    weights = np.full(len(parts), 1 / len(parts) if kind == "number" else 1.0)
    if len(chosen):
        seen = evidence[:, chosen]
        best = mean_loss(kind, prior + np.tensordot(weights, seen, 1), target)
        for place in list(range(len(parts))) * ROUNDS:
            for weight in WEIGHTS:
                tried = weights.copy()
                tried[place] = weight
                loss = mean_loss(kind, prior + np.tensordot(tried, seen, 1), target)
                if loss < best:
                    best, weights = loss, tried
    fused = prior + np.tensordot(weights, evidence, 1)
    return (log_softmax(fused, axis=1) if kind == "class" else fused), weights.tolist()
