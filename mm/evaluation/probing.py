"""Evaluation of a model's frozen vectors: linear probes, few-shot classification and zero-shot classification."""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from mm.applying import count_faults, find_device, match_data, open_model
from mm.checkpoint import TrainedModel
from mm.data_source import DataSource
from mm.evaluation.frozen_vectors import (
    FrozenVectors,
    LabelledVectors,
    extract_embeddings,
    select_labelled,
)
from mm.evaluation.zero_shot import (
    ClassPrompts,
    check_class_target,
    check_prompts,
    embed_classes,
    input_modalities,
    input_subsets,
)
from mm.messages import is_first_process, listing
from mm.metrics.few_shot import draw, nearest, prototypes
from mm.model import MultimodalModel
from mm.reports import Report, Table
from mm.tasks.measures import section

# Inverse regularisation strength of logistic regressions on unit vectors, whose components are small.
INVERSE_REGULARISATION = 10.0
log = logging.getLogger("mm")


@dataclass(frozen=True, kw_only=True)
class FewShot:
    """Settings of a few-shot evaluation.

    Args:
        target: Name of the target whose classes are predicted.
        shots: Numbers of training rows per class.
        num_trials: Number of random draws of these rows; their mean and standard deviation are reported.
    """

    target: str
    shots: Sequence[int] = (1, 4, 16)
    num_trials: int = 10

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self | None:
        """Return the settings that a config describes; None if its target is not set."""
        return None if config.get("target") is None else cls(**config)


@dataclass(frozen=True, kw_only=True)
class Probes:
    """The evaluations of frozen vectors.

    Args:
        zero_shot: Prompts for zero-shot classification; None: it is left out.
        few_shot: Settings of few-shot classification; None: it is left out.
        linear_probe: Target that logistic regressions on all training rows predict; None: they are left out.
    """

    zero_shot: ClassPrompts | None = None
    few_shot: FewShot | None = None
    linear_probe: str | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return the evaluations that the keys `zero_shot`, `few_shot` and `linear_probe` of a config describe."""
        return cls(
            zero_shot=ClassPrompts.from_config(config["zero_shot"]),
            few_shot=FewShot.from_config(config["few_shot"]),
            linear_probe=config["linear_probe"],
        )

    @property
    def targets(self) -> list[str]:
        """Return the names of the targets that are needed."""
        names = [self.zero_shot and self.zero_shot.target, self.linear_probe, self.few_shot and self.few_shot.target]
        return list(dict.fromkeys(name for name in names if name is not None))

    @property
    def trains(self) -> bool:
        """Return whether anything is fitted to training rows."""
        return self.linear_probe is not None or self.few_shot is not None


@dataclass(repr=False)
class ProbeReport(Report):
    """Accuracies on frozen vectors, such as `test[vision]/few_shot/prototype@4`."""

    metrics: Mapping[str, float]

    def table(self) -> Table:
        """Return a row for each metric, with a column for each input and one for all inputs together."""
        places = list(dict.fromkeys(name.partition("/")[0] for name in self.metrics if name.startswith("test")))
        names = list(dict.fromkeys(name.partition("/")[2] for name in self.metrics if name.startswith("test")))
        rows = [[name, *(self.metrics.get(f"{place}/{name}") for place in places)] for name in names]
        return Table(["", *places], rows)


def probe(
    model: TrainedModel | str | Path,
    data: DataSource,
    probes: Probes,
    split: str = "test",
    seed: int = 0,
    device: str | torch.device = "auto",
    precision: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> ProbeReport:
    """Evaluate the frozen vectors of a model's encoders, without its fusion and heads.

    Args:
        model: A trained model, or the path of its directory.
        data: Data with the targets that the probes name, which the model need not know.
        probes: The evaluations.
        split: Split of the evaluated rows; probes are fitted to the training rows.
        seed: Random seed of the choice of few-shot rows.
        device: `auto` for the accelerator if there is one, or a torch device.
        precision: Function that returns a context in which the encoders run, such as `lambda: torch.autocast("cuda")`.

    Returns:
        A report of accuracies.

    Raises:
        ValueError: If a target is missing, or if a setting is invalid.

    Example:
        report = probe("outputs/first/model", data, Probes(linear_probe="label", few_shot=FewShot(target="label")))
        report.metrics["test[text]/linear_probe_accuracy"]
    """
    loaded = open_model(model)
    data = match_data(loaded, data, labelled=False)
    check_probes(probes, data, loaded.model)
    place = find_device(device)
    before = next(loaded.model.parameters()).device
    loaded.model.to(place)
    try:
        test = extract_embeddings(loaded.model, data, split, precision)
        train = extract_embeddings(loaded.model, data, "train", precision) if probes.trains else None
        metrics = {}
        if probes.zero_shot is not None:
            metrics |= zero_shot_of_encoders(loaded.model, test, data, probes.zero_shot)
    finally:
        loaded.model.to(before)
    metrics |= fit_probes(probes, train, test, data, seed)
    return ProbeReport(metrics | count_faults(data) | {"data/rows": len(data.rows(split))})


def pair_rows(
    train: FrozenVectors, test: FrozenVectors, data: DataSource, target: str
) -> dict[str, tuple[LabelledVectors, LabelledVectors]]:
    """Return section, such as `test[audio]`, to training and test rows of each input and of all inputs concatenated."""
    inputs, truth = list(train.vectors), data.targets[target].numpy()
    pairs = {
        section("test", part, inputs): (select_labelled(train, part, truth), select_labelled(test, part, truth))
        for part in input_subsets(inputs, inputs)
    }
    return {place: pair for place, pair in pairs.items() if len(np.unique(pair[0].label)) > 1 and len(pair[1].label)}


def linear_probe(train: FrozenVectors, test: FrozenVectors, data: DataSource, target: str) -> dict[str, float]:
    """Return the accuracy of logistic regressions on the vectors of each input, and of all inputs concatenated.

    Args:
        train: Vectors of the training rows.
        test: Vectors of the evaluated rows.
        data: Data with the target.
        target: Target whose classes are predicted.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    metrics = {}
    for place, (seen, unseen) in pair_rows(train, test, data, target).items():
        regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(seen.x, seen.label)
        metrics[f"{place}/linear_probe_accuracy"] = float(regression.score(unseen.x, unseen.label))
    return metrics


def few_shot(
    train: FrozenVectors, test: FrozenVectors, data: DataSource, settings: FewShot, seed: int
) -> dict[str, float]:
    """Return the accuracy with k training rows per class, of prototypes and of logistic regressions.

    Args:
        train: Vectors of the training rows.
        test: Vectors of the evaluated rows.
        data: Data with the target.
        settings: The target, the numbers k, and the number of trials.
        seed: Random seed of the choice of rows, together with the index of the trial.

    Returns:
        The mean over trials, and, as NAME_std, the standard deviation.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    metrics = {}
    for place, (seen, unseen) in pair_rows(train, test, data, settings.target).items():
        accuracies: dict[str, list[float]] = {}
        for number in range(settings.num_trials):
            lots = draw(seen.label, [seed, number])
            for k in settings.shots:
                shots = np.concatenate([lot[:k] for lot in lots])
                x, label = seen.x[shots], seen.label[shots]
                centres, classes = prototypes(x, label)
                predicted = {"prototype": classes[nearest(unseen.x, centres)]}
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)  # raised if a few rows are separable
                    regression = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=1000).fit(x, label)
                    predicted["logistic"] = regression.predict(unseen.x)
                for method, classes_of_rows in predicted.items():
                    accuracy = float((classes_of_rows == unseen.label).mean())
                    accuracies.setdefault(f"{method}@{k}", []).append(accuracy)
        for name, values in accuracies.items():
            metrics[f"{place}/few_shot/{name}"] = float(np.mean(values))
            if len(values) > 1:
                metrics[f"{place}/few_shot/{name}_std"] = float(np.std(values, ddof=1))
    return metrics


def zero_shot_of_encoders(
    model: MultimodalModel, test: FrozenVectors, data: DataSource, prompts: ClassPrompts
) -> dict[str, float]:
    """Return the zero-shot accuracy of each text input, with the vectors of its encoder before projection."""
    truth = data.targets[prompts.target].numpy()
    metrics: dict[str, float] = {}
    for name, modality in input_modalities(data, model.inputs).items():
        if modality == "text":
            classes = embed_classes(model, data, prompts, name, projected=False)
            unseen = select_labelled(test, (name,), truth)
            predicted = (unseen.x @ classes.double().numpy().T).argmax(1)
            metrics["test/zero_shot_chance"] = 1 / len(classes)
            accuracy = float((predicted == unseen.label).mean())
            metrics[f"{section('test', (name,), model.inputs)}/zero_shot_accuracy"] = accuracy
    return metrics


def fit_probes(
    probes: Probes, train: FrozenVectors | None, test: FrozenVectors, data: DataSource, seed: int
) -> dict[str, float]:
    """Return the accuracies of linear probes and few-shot classification; empty without training rows."""
    metrics: dict[str, float] = {}
    if train is None:
        return metrics
    if probes.linear_probe is not None:
        metrics |= linear_probe(train, test, data, probes.linear_probe)
    if probes.few_shot is not None:
        metrics |= few_shot(train, test, data, probes.few_shot, seed)
    return metrics


def check_probes(probes: Probes, data: DataSource, model: MultimodalModel) -> None:
    """Check that all probes fit the data and the model.

    Raises:
        ValueError: If a target is missing, or if a setting is invalid.
    """
    if probes.zero_shot is not None:
        check_prompts(probes.zero_shot, data, model)
    if probes.linear_probe is not None:
        check_class_target(data, "linear_probe", probes.linear_probe)
    if probes.trains:
        data.rows("train")
    if probes.few_shot is not None:
        check_few_shot(probes.few_shot, data)


def check_few_shot(settings: FewShot, data: DataSource) -> None:
    """Check a few-shot evaluation, and log the classes with fewer training rows than shots.

    Raises:
        ValueError: If a number is invalid, or if the target is missing.
    """
    shots = list(settings.shots) if isinstance(settings.shots, list | tuple) else settings.shots
    trials = settings.num_trials
    for name, given, values, such in (("shots", shots, shots, "[1, 4, 16]"), ("num_trials", trials, [trials], "10")):
        if not isinstance(values, list) or not values or not all(type(x) is int and x > 0 for x in values):
            raise ValueError(f"few_shot.{name}: got {given}, wanted whole numbers above 0, such as {such}")
    classes = check_class_target(data, "few_shot.target", settings.target).classes
    label = data.targets[settings.target][data.rows("train")]
    rows = np.bincount(label[label >= 0].numpy(), minlength=len(classes))
    few = [f"{c} {n}" for c, n in zip(classes, rows.tolist()) if n < max(settings.shots)]
    if few and is_first_process():
        log.info(f"few-shot: of classes with fewer training rows than shots all are taken: {listing(few)}")
