"""Baselines of a data set: classical models of each input and of all inputs together, on the rows of its splits."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torchmetrics import Metric

from mm.baselines.estimators import (
    DESCRIPTIONS,
    OTHER,
    build_estimator,
    has_variety,
    list_settings,
    max_training_rows,
    score_rows,
    vectorize_texts,
)
from mm.baselines.reading import InputFeatures, read_features
from mm.baselines.report import SPLITS, BaselineReport, BaselineResult
from mm.baselines.scoring import (
    SUPPORTED,
    calibrate_scores,
    default_metrics,
    fuse_scores,
    measure_scores,
    prior_scores,
    right_share,
)
from mm.data_source import DataSource, check_data_source
from mm.messages import near
from mm.tensors import labelled
from mm.types import TargetData

MAX_EVALUATED_ROWS = 10_000  # of each of the validation and test rows


class RowSample(NamedTuple):
    """The rows on which baselines are fitted and measured."""

    train: np.ndarray  # (N,) indices of training rows in ascending order
    evaluated: dict[str, np.ndarray]  # split to indices of its rows; only splits that have rows

    @property
    def others(self) -> np.ndarray:
        """Return the rows of all evaluated splits, one split after the other."""
        return np.concatenate([np.zeros(0, dtype=np.int64), *self.evaluated.values()])

    def place(self, split: str) -> slice:
        """Return the positions of the rows of a split in `others`."""
        begin = 0
        for name, rows in self.evaluated.items():
            if name == split:
                return slice(begin, begin + len(rows))
            begin += len(rows)
        return slice(begin, begin)


class ReadInput(NamedTuple):
    """One input that was read: its modality, the training rows that were read, and the features of these and others."""

    modality: str
    train: np.ndarray  # (N,) indices of training rows
    features: InputFeatures  # of the training rows, followed by `RowSample.others`


def baseline(
    data: DataSource,
    *,
    inputs: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    metrics: Mapping[str, Mapping[str, Metric]] | None = None,
    max_rows: int = 100_000,
    seed: int = 0,
    num_threads: int | None = None,
) -> BaselineReport:
    """Fit classical models of scikit-learn in seconds, which a trained model should beat.

    For each target there is a constant (the most frequent class, the mean, or the labels of most rows), one model per
    input (TF-IDF and a linear model for texts, MFCC statistics and an SVM for sounds, histograms of gradients and
    colours and an SVM for pictures, gradient boosting for tables), and the late fusion of these. They are fitted on the
    training rows; validation rows choose their settings and the weights of the inputs. A row that lacks an input takes
    no part in the fit of its model, and adds nothing to the fusion there.

    Args:
        data: A data module, such as `mm.Manifest`. It is not changed.
        inputs: Names of the inputs to read; None: all inputs.
        targets: Names of the targets to predict; None: all targets. Classes, labels and numbers have baselines.
        metrics: Target name to metric name to metric; None: those of the default head of the target.
        max_rows: Maximum number of training rows; of more rows a random sample is used. Models of sounds and pictures
            are fitted on at most 5,000, and at most 10,000 rows of each split are evaluated.
        seed: Random seed of the samples.
        num_threads: Number of threads that read and decode files; None: one per processor.

    Returns:
        The report, with metrics such as `baseline/test[audio]/accuracy`.

    Raises:
        ValueError: If there is no such input or target, or if there are no training rows.

    Example:
        >>> import mm
        >>> rows = [{"text": f"fine {n}", "mood": "good"} for n in range(20)]
        >>> rows += [{"text": f"poor {n}", "mood": "bad"} for n in range(20)]
        >>> report = mm.baseline(mm.Manifest(rows, targets=["mood"], num_workers=0))
        >>> report.metrics["baseline/test[text]/accuracy"]
        1.0
    """
    check_data_source(data)
    started = time.monotonic()
    if max_rows < 1:
        raise ValueError(f"max_rows: got {max_rows}, wanted 1 or more")
    names = choose_names("inputs", inputs, data.spec.inputs)
    wished = choose_names("targets", targets, data.spec.targets)
    supported = {name: data.spec.targets[name] for name in wished if data.spec.targets[name].kind in SUPPORTED}
    notes = [
        f"no baseline for '{name}': its target is of kind {data.spec.targets[name].kind}, and only "
        f"{', '.join(SUPPORTED)} have one"
        for name in wished
        if name not in supported
    ]
    if not wished:
        notes.append("no baseline: there is no target to predict")
    results: list[BaselineResult] = []
    primary: dict[str, tuple[str, bool]] = {}
    if supported:
        sample = sample_rows(data, list(supported), max_rows, seed, notes)
        read = read_inputs(data, names, sample, seed, num_threads, notes)
        for name, target in supported.items():
            measured = dict((metrics or {}).get(name) or default_metrics(target))
            fitted = fit_target(data, name, target, sample, read, measured)
            results += fitted
            comparable = choose_primary(fitted, measured)
            if comparable is not None:
                primary[name] = comparable
            if not fitted:
                notes.append(f"no baseline for '{name}': no training row has a label and an input")
    return BaselineReport(results, wished, primary, notes, time.monotonic() - started)


def choose_primary(results: Sequence[BaselineResult], metrics: Mapping[str, Metric]) -> tuple[str, bool] | None:
    """Return the first metric that was measured and says whether higher is better, and its direction; None: none does.

    Args:
        results: The models of one target.
        metrics: Metric name to metric.
    """
    measured = {name for result in results for values in result.metrics.values() for name in values}
    for name, metric in metrics.items():
        if name in measured and metric.higher_is_better is not None:
            return name, metric.higher_is_better
    return None


def choose_names(option: str, chosen: Sequence[str] | None, known: Mapping[str, object]) -> list[str]:
    """Return the chosen names, or all.

    Args:
        option: Name of the argument, for the message.
        chosen: The names; None: all.
        known: The names that there are.

    Raises:
        ValueError: If there is no such name.
    """
    for name in chosen or ():
        if name not in known:
            raise ValueError(f"{option}: got '{name}', wanted some of {', '.join(known)}{near(name, known)}")
    return list(known if chosen is None else chosen)


def sample_rows(data: DataSource, targets: Sequence[str], max_rows: int, seed: int, notes: list[str]) -> RowSample:
    """Return the rows on which baselines are fitted and measured: those with a label, or a sample of them.

    Args:
        data: The data.
        targets: Names of the targets; a row with a label of one of them counts.
        max_rows: Maximum number of training rows.
        seed: Random seed of the samples.
        notes: Sentences on samples are added to it.

    Raises:
        ValueError: If there are no training rows.
    """
    data.rows("train")  # raises the message that says how to get some
    has_label = np.zeros(len(data.ids), dtype=bool)
    for name in targets:
        has_label |= labelled(data.targets[name]).numpy()
    chosen: dict[str, np.ndarray] = {}
    for split, most in (("train", max_rows), *((split, MAX_EVALUATED_ROWS) for split in SPLITS)):
        rows = np.flatnonzero((data.splits == split) & has_label)
        chosen[split] = draw(rows, most, seed)
        if len(rows) > most:
            notes.append(f"{split}: a random sample of {most:,} of {len(rows):,} rows is used (seed {seed})")
    return RowSample(chosen["train"], {split: chosen[split] for split in SPLITS if len(chosen[split])})


def draw(rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Return at most `most` rows, drawn without replacement, in ascending order."""
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def read_inputs(
    data: DataSource, names: Sequence[str], sample: RowSample, seed: int, num_threads: int | None, notes: list[str]
) -> dict[str, ReadInput]:
    """Read the features of all inputs.

    Args:
        data: The data.
        names: Names of the inputs.
        sample: The rows.
        seed: Random seed of the samples.
        num_threads: Number of threads that read and decode files.
        notes: Sentences on samples and unreadable cells are added to it.
    """
    read = {}
    for name in names:
        modality = data.spec.inputs[name].modality
        most = max_training_rows(modality) or len(sample.train)
        train = draw(sample.train, most, seed)
        if len(train) < len(sample.train):
            notes.append(f"{name}: fitted on a random sample of {most:,} training rows (seed {seed})")
        rows = np.concatenate([train, sample.others])
        features = read_features(data, name, rows, np.arange(len(rows)) < len(train), num_threads)
        if features.unreadable:
            row, error = next(iter(features.unreadable.items()))
            count = len(features.unreadable)
            notes.append(f"{name}: {count} unreadable, taken as absent, such as {data.row_name(row)}: {error}")
        read[name] = ReadInput(modality, train, features)
    return read


def fit_target(
    data: DataSource,
    name: str,
    target: TargetData,
    sample: RowSample,
    read: Mapping[str, ReadInput],
    metrics: Mapping[str, Metric],
) -> list[BaselineResult]:
    """Fit and measure all models of one target.

    Args:
        data: The data.
        name: Name of the target.
        target: Facts about the target.
        sample: The rows.
        read: Input name to its features.
        metrics: Metric name to metric.

    Returns:
        The constant, the model of each input, and, with two or more of these, their fusion; empty if no training row
        has a label and an input.
    """
    kind, column = target.kind, data.targets[name]
    truth = column[sample.others]  # (M, ...)
    present = {key: one.features.present[len(one.train) :] for key, one in read.items()}
    has_input = np.any(list(present.values()), axis=0) if present else np.zeros(len(truth), dtype=bool)
    fit_rows = sample.train[labelled(column[sample.train]).numpy()]
    if not len(fit_rows) or not has_input.size:
        return []
    prior = prior_scores(kind, column[fit_rows].numpy(), max(1, len(target.classes)))
    validated = np.zeros(len(truth), dtype=bool)
    validated[sample.place("val")] = True
    validated &= labelled(truth).numpy()

    def measure(key: str, model: str, scores: np.ndarray, counted: np.ndarray) -> BaselineResult:
        found = {}
        for split in sample.evaluated:
            rows = np.flatnonzero(counted[sample.place(split)]) + sample.place(split).start
            found[split] = measure_scores(kind, scores[rows], truth[rows], metrics)
        return BaselineResult(name, key, model, {split: values for split, values in found.items() if values})

    constant = np.tile(prior, (len(truth), 1))
    results = [measure("constant", describe_constant(target, prior), constant, has_input)]
    parts = {}
    for key, one in read.items():
        chosen = np.flatnonzero(validated & present[key])
        scores = fit_input(kind, one, column, prior, chosen, truth[chosen].numpy())
        if scores is not None:
            parts[key] = scores
            results.append(measure(key, DESCRIPTIONS.get(one.modality, OTHER), scores, present[key]))
    if len(parts) > 1:
        chosen = np.flatnonzero(validated & has_input)
        fused, weights = fuse_scores(kind, prior, list(parts.values()), chosen, truth[chosen].numpy())
        shown = " + ".join(f"{weight:g} {key}" for key, weight in zip(parts, weights, strict=True))
        results.append(measure("all", f"late fusion: {shown}", fused, has_input))
    return results


def fit_input(
    kind: str, one: ReadInput, column: Tensor, prior: np.ndarray, chosen: np.ndarray, truth: np.ndarray
) -> np.ndarray | None:
    """Fit the model of one input, with the setting that is best on validation rows.

    Args:
        kind: Kind of the target.
        one: The input.
        column: Target of all rows of the data.
        prior: Scores of a row without any input, (C,).
        chosen: Positions of the validation rows among the evaluated rows, (V,).
        truth: Target of these, (V, ...).

    Returns:
        Scores of the evaluated rows, (M, C), the prior where the input is absent; None if there is nothing to fit.
    """
    features, count = one.features, len(one.train)
    fit = np.flatnonzero(features.present[:count] & labelled(column[one.train]).numpy())
    target = column[one.train[fit]].numpy()
    present = np.flatnonzero(features.present[count:])
    if not has_variety(kind, target) or not len(present):
        return None
    if isinstance(features.values, list):
        texts = features.values
        x, others = vectorize_texts([texts[i] for i in fit], [texts[count + i] for i in present])
    else:
        x, others = features.values[fit], features.values[count + present]
    best, best_share = None, -np.inf
    settings = list_settings(one.modality, kind, len(prior))
    for setting in settings if len(chosen) else settings[:1]:
        build = partial(build_estimator, one.modality, kind, setting, len(fit), features.categories)
        scores = np.tile(prior, (len(features.present) - count, 1))
        scores[present] = score_rows(build, kind, x, target, others, prior)
        share = right_share(kind, scores[chosen], truth) if len(chosen) else 0.0
        if share > best_share:
            best, best_share = scores, share
    assert best is not None
    calibrated = np.tile(prior, (len(best), 1))
    calibrated[present] = calibrate_scores(kind, best, chosen, truth)[present]
    return calibrated


def describe_constant(target: TargetData, prior: np.ndarray) -> str:
    """Return what a model that reads no input predicts.

    Args:
        target: The target.
        prior: Scores of a row without any input, (C,).
    """
    if target.kind == "number":
        return f"mean {prior[0]:.6g}"
    if target.kind == "class":
        return f"most frequent class '{target.classes[int(prior.argmax())]}'"
    names = [name for name, score in zip(target.classes, prior, strict=True) if score >= 0]
    return f"labels of most rows: {', '.join(names) or 'none'}"
