"""What a model's vectors are good for as they are: linear probes, a few shots of each class, prompts."""

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

# Inverse strength of the regularisation of unit vectors, whose parts are small.
INVERSE_REGULARISATION = 10.0
log = logging.getLogger("mm")


@dataclass(frozen=True, kw_only=True)
class FewShot:
    """A few-shot measurement.

    Args:
        target: The target whose classes are learnt.
        shots: How many training rows of each class.
        num_trials: How often they are drawn; mean and standard deviation are reported.
    """

    target: str
    shots: Sequence[int] = (1, 4, 16)
    num_trials: int = 10

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self | None:
        """Return what a config describes; None where it names no target."""
        return None if config.get("target") is None else cls(**config)


@dataclass(frozen=True, kw_only=True)
class Probes:
    """What is measured on frozen vectors.

    Args:
        zero_shot: Prompts of classes; None: none.
        few_shot: Classes learnt from a few rows; None: none.
        linear_probe: A target that logistic regressions on all training rows predict; None: none.
    """

    zero_shot: ClassPrompts | None = None
    few_shot: FewShot | None = None
    linear_probe: str | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return what the keys `zero_shot`, `few_shot` and `linear_probe` of a config describe."""
        return cls(
            zero_shot=ClassPrompts.from_config(config["zero_shot"]),
            few_shot=FewShot.from_config(config["few_shot"]),
            linear_probe=config["linear_probe"],
        )

    @property
    def targets(self) -> list[str]:
        """The targets that are read."""
        names = [self.zero_shot and self.zero_shot.target, self.linear_probe, self.few_shot and self.few_shot.target]
        return list(dict.fromkeys(name for name in names if name is not None))

    @property
    def trains(self) -> bool:
        """Whether anything is fitted to training rows."""
        return self.linear_probe is not None or self.few_shot is not None


@dataclass(repr=False)
class ProbeReport(Report):
    """Accuracies on frozen vectors, such as `test[vision]/few_shot/prototype@4`."""

    metrics: Mapping[str, float]

    def table(self) -> Table:
        """Return a row for each measure, a column for each input, and one for all together."""
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
    """Measure what the vectors of a model's encoders are good for; its heads and its fusion are left out.

    Args:
        model: A trained model, or the path of its directory.
        data: Rows with the targets that the probes name, which the model need not know.
        probes: What is measured.
        split: The rows that are measured; probes are fitted to the training rows.
        seed: Decides which rows are shots.
        device: `auto` for the accelerator where there is one, or a torch device.
        precision: Makes a context in which encoders run, such as `lambda: torch.autocast("cuda")`.

    Returns:
        A report of accuracies.

    Raises:
        ValueError: If a target is lacking, or a setting is none of its values.

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
    """Return section, such as `test[audio]`, to training and test rows: of each input, and of all side by side."""
    inputs, truth = list(train.vectors), data.targets[target].numpy()
    pairs = {
        section("test", part, inputs): (select_labelled(train, part, truth), select_labelled(test, part, truth))
        for part in input_subsets(inputs, inputs)
    }
    return {place: pair for place, pair in pairs.items() if len(np.unique(pair[0].label)) > 1 and len(pair[1].label)}


def linear_probe(train: FrozenVectors, test: FrozenVectors, data: DataSource, target: str) -> dict[str, float]:
    """Return the accuracy of logistic regressions on each input's vectors, and on all side by side.

    Args:
        train: Vectors of the training rows.
        test: Vectors of the rows that are measured.
        data: Has the target.
        target: The target whose classes are predicted.
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
    """Return the accuracy from k training rows of each class, by prototypes and by a logistic regression.

    Args:
        train: Vectors of the training rows.
        test: Vectors of the rows that are measured.
        data: Has the target.
        settings: The target, the numbers k and how often rows are drawn.
        seed: Decides, with the number of the draw, which rows are drawn.

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
                    warnings.simplefilter("ignore", ConvergenceWarning)  # of a few rows that are separated already
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
    """Return the accuracy of the closest class's prompts, as the encoder of each text input gives them."""
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
    """Return what linear probes and few shots reach; nothing where there are no training rows."""
    metrics: dict[str, float] = {}
    if train is None:
        return metrics
    if probes.linear_probe is not None:
        metrics |= linear_probe(train, test, data, probes.linear_probe)
    if probes.few_shot is not None:
        metrics |= few_shot(train, test, data, probes.few_shot, seed)
    return metrics


def check_probes(probes: Probes, data: DataSource, model: MultimodalModel) -> None:
    """Check that everything that is asked for can be measured.

    Raises:
        ValueError: If a target is lacking, or a setting is none of its values.
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
    """Check a few-shot measurement, and log which classes have fewer training rows than shots.

    Raises:
        ValueError: If a number is none, or the target is lacking.
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
