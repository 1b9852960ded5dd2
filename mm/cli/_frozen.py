"""What a model's vectors are good for as they are: linear probes, a few shots of each class, prompts."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from lightning import Trainer
from torch import Tensor

from mm.checkpoint import LoadedModel, to_device
from mm.cli import _alignment
from mm.messages import is_first_process, listing
from mm.metrics.few_shot import draw, nearest, prototypes
from mm.model import MultimodalModel
from mm.tasks.measures import section
from mm.windows import directions

# Inverse strength of the regularisation of unit vectors, whose parts are small.
INVERSE = 10.0
PASSES = "zero_shot, few_shot and linear_probe"
TRAINER = ("trainer.accelerator", "trainer.devices", "trainer.precision")  # the keys of it that are read


class Vectors(NamedTuple):
    """Unit vectors of the rows of a split, by input, of widths of their own; zeros where absent."""

    vectors: dict[str, np.ndarray]  # (R, D)
    present: dict[str, np.ndarray]  # (R,) bool
    row: np.ndarray  # (R,)


class Side(NamedTuple):
    """Rows of a split that have one of some inputs, and a label."""

    x: np.ndarray  # (N, D), the inputs' vectors side by side
    label: np.ndarray  # (N,) class


def of_aligned(seen: tuple[Tensor, Tensor, Tensor], inputs: Sequence[str]) -> Vectors:
    """Of a contrastive task's last test: vectors (R, N, D), presence (R, N), row (R,)."""
    vectors, present, row = (x.numpy() for x in seen)
    by_input = {name: vectors[:, i] for i, name in enumerate(inputs)}
    return Vectors(by_input, {name: present[:, i] for i, name in enumerate(inputs)}, row)


def check_trainer(trainer: Trainer, typed: Sequence[str]) -> None:
    """Refuse settings of the trainer that the passes over frozen encoders don't read.

    Args:
        trainer: As the config asks for it; its device and its precision are used.
        typed: The keys that the user set.

    Raises:
        ValueError: If another key of the trainer is set, or several processes are asked for.
    """
    for key in typed:
        if key.startswith("trainer.") and key not in TRAINER:
            raise ValueError(f"{key}: {PASSES} read only {', '.join(TRAINER)}; leave it out")
    if trainer.world_size > 1:
        raise ValueError(
            f"trainer.devices: got {trainer.world_size} processes, but {PASSES} run in one; set trainer.devices=1"
        )


@torch.inference_mode()
def of_encoders(loaded: LoadedModel, datamodule: Any, split: str, trainer: Trainer) -> Vectors:
    """What each encoder gives, before it is projected; of several windows the direction of the mean of their units."""
    from tqdm import tqdm

    device, precision = trainer.strategy.root_device, trainer.precision_plugin
    model = loaded.model.to(device)
    units: dict[str, list[Tensor]] = {name: [] for name in model.inputs}
    there: dict[str, list[Tensor]] = {name: [] for name in model.inputs}
    rows: list[Tensor] = []
    for raw in tqdm(datamodule.loader(split), desc=f"vectors of {split}", leave=False, disable=None):
        batch = datamodule.finish(to_device(raw, device))
        for name in model.inputs:
            with precision.forward_context():
                f = model.encoders[model.share.get(name, name)](batch.inputs[name], batch.masks[name])
            present = f.mask.any(1) & (batch.row >= 0)
            units[name].append((F.normalize(f.pooled.float(), dim=-1) * present.unsqueeze(1)).cpu())
            there[name].append(present.cpu())
        rows.append(batch.row.cpu())
    row = torch.cat(rows)
    merged = {name: directions(torch.cat(x), torch.cat(there[name]), row) for name, x in units.items()}
    return Vectors(
        {name: unit.numpy() for name, (_, unit, _) in merged.items()},
        {name: present.numpy() for name, (_, _, present) in merged.items()},
        row.unique().numpy(),
    )


def side(of: Vectors, part: Sequence[str], truth: np.ndarray) -> Side:
    """truth: (rows of the table,) class, below 0: unlabelled."""
    label = truth[of.row]
    kept = np.stack([of.present[name] for name in part]).any(0) & (label >= 0) & (of.row >= 0)
    return Side(np.concatenate([of.vectors[name][kept] for name in part], 1).astype(np.float64), label[kept])


def sides(train: Vectors, test: Vectors, datamodule: Any, target: str) -> dict[str, tuple[Side, Side]]:
    """Section, such as test[audio] -> training and test rows: of each input, and of all side by side."""
    inputs, truth = list(train.vectors), datamodule.table.targets[target].numpy()
    found = {
        section("test", part, inputs): (side(train, part, truth), side(test, part, truth))
        for part in _alignment.parts(inputs, inputs)
    }
    return {place: pair for place, pair in found.items() if len(np.unique(pair[0].label)) > 1 and len(pair[1].label)}


def probe(train: Vectors, test: Vectors, datamodule: Any, target: str) -> dict[str, float]:
    """Accuracy of logistic regressions on what is frozen: on each input's vectors, and on all side by side."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = {}
    for place, (seen, unseen) in sides(train, test, datamodule, target).items():
        regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(seen.x, seen.label)
        found[f"{place}/linear_probe_accuracy"] = float(regression.score(unseen.x, unseen.label))
    return found


def check_shots(asked: Mapping[str, Any], datamodule: Any) -> None:
    """Errors: ValueError where few shots are asked for that can't be drawn."""
    if asked["target"] is None:
        return
    for name, values, such in (("shots", asked["shots"], "[1, 4, 16]"), ("draws", [asked["draws"]], "10")):
        if not isinstance(values, list) or not values or not all(type(x) is int and x > 0 for x in values):
            raise ValueError(f"few_shot.{name}: got {asked[name]}, wanted whole numbers above 0, such as {such}")
    about = _alignment.known(datamodule, "few_shot.target", asked["target"])
    label = datamodule.table.targets[asked["target"]][datamodule.rows("train")]
    rows = np.bincount(label[label >= 0].numpy(), minlength=len(about.classes))
    few = [f"{c} {n}" for c, n in zip(about.classes, rows.tolist()) if n < max(asked["shots"])]
    if few and is_first_process():
        print(f"few-shot: of classes with fewer training rows than shots all are taken: {listing(few)}")


def few_shot(train: Vectors, test: Vectors, datamodule: Any, asked: Mapping[str, Any], seed: int) -> dict[str, float]:
    """Test accuracy from k training rows of each class, by prototypes and by a logistic regression.

    Mean and, as NAME_std, standard deviation over draws, each of which follows from the seed.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    found = {}
    for place, (seen, unseen) in sides(train, test, datamodule, asked["target"]).items():
        reached: dict[str, list[float]] = {}
        for number in range(asked["draws"]):
            lots = draw(seen.label, [seed, number])
            for k in asked["shots"]:
                shots = np.concatenate([lot[:k] for lot in lots])
                x, label = seen.x[shots], seen.label[shots]
                centres, classes = prototypes(x, label)
                told = {"prototype": classes[nearest(unseen.x, centres)]}
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)  # of a few rows that are told apart already
                    told["logistic"] = LogisticRegression(C=INVERSE, max_iter=1000).fit(x, label).predict(unseen.x)
                for how, answer in told.items():
                    reached.setdefault(f"{how}@{k}", []).append(float((answer == unseen.label).mean()))
        for name, values in reached.items():
            found[f"{place}/few_shot/{name}"] = float(np.mean(values))
            if len(values) > 1:
                found[f"{place}/few_shot/{name}_std"] = float(np.std(values, ddof=1))
    return found


def zero_shot(loaded: LoadedModel, test: Vectors, datamodule: Any, asked: Mapping[str, Any]) -> dict[str, float]:
    """Accuracy of the closest class's prompts, as the encoder of each text input gives them."""
    kinds = _alignment.modalities(datamodule, loaded.model.inputs)
    truth = datamodule.table.targets[asked["target"]].numpy()
    found: dict[str, float] = {}
    for name in (name for name, modality in kinds.items() if modality == "text"):
        classes = _alignment.told_classes(loaded.model, datamodule, asked, name, projected=False)
        unseen = side(test, (name,), truth)
        answer = (unseen.x @ classes.double().numpy().T).argmax(1)
        found["test/zero_shot_chance"] = 1 / len(classes)
        found[f"{section('test', (name,), loaded.model.inputs)}/zero_shot_accuracy"] = float(
            (answer == unseen.label).mean()
        )
    return found


def measure(
    asked: Mapping[str, Any], train: Vectors | None, test: Vectors, datamodule: Any, seed: int
) -> dict[str, float]:
    """What of linear_probe and few_shot is asked for; prints what few shots reach. train: None where neither is."""
    results: dict[str, float] = {}
    if train is None:
        return results
    if asked["linear_probe"] is not None:
        results |= probe(train, test, datamodule, asked["linear_probe"])
    if asked["few_shot"]["target"] is not None:
        found = few_shot(train, test, datamodule, asked["few_shot"], seed)
        results |= found
        if is_first_process():
            for name, value in found.items():
                if not name.endswith("_std"):
                    spread = f" ± {found[f'{name}_std']:.4f}" if f"{name}_std" in found else ""
                    print(f"{name:40} {value:.4f}{spread}")
    return results


def wanted(asked: Mapping[str, Any]) -> list[str]:
    """The targets that are named."""
    names = (asked["zero_shot"]["target"], asked["linear_probe"], asked["few_shot"]["target"])
    return list(dict.fromkeys(name for name in names if name is not None))


def trained_on(asked: Mapping[str, Any]) -> bool:
    """Whether anything learns from training rows."""
    return asked["linear_probe"] is not None or asked["few_shot"]["target"] is not None


def check(asked: Mapping[str, Any], datamodule: Any, model: MultimodalModel) -> None:
    """Errors: ValueError for what can't be measured."""
    _alignment.check_prompts(asked["zero_shot"], datamodule, model)
    if asked["linear_probe"] is not None:
        _alignment.known(datamodule, "linear_probe", asked["linear_probe"])
    if trained_on(asked):
        datamodule.rows("train")
    check_shots(asked["few_shot"], datamodule)
