"""Zero-shot classification: choose the class whose prompts are closest to an input (CLIP, Radford et al. 2021)."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from mm.batching import Sample, collate
from mm.checkpoint import to_device
from mm.data_source import DataSource
from mm.messages import is_first_process, listing, near, plain
from mm.metrics.zero_shot import COMBINE, class_scores, class_vectors
from mm.model import MultimodalModel
from mm.tasks.base import Task
from mm.tasks.contrastive import Contrastive
from mm.tasks.measures import section
from mm.types import TargetData, Towered, Transform
from mm.windows import directions

PROMPT_BATCH = 256  # number of prompts that are encoded at a time
log = logging.getLogger("mm")


@dataclass(frozen=True, kw_only=True)
class ClassPrompts:
    """Prompts for the classes of a target.

    Args:
        target: Name of the target, which has one class per row.
        templates: Texts with one `{}`, which is replaced by the name of the class.
        class_names: Class to its name in prompts; other classes keep their own name.
        combine: How the vectors of several inputs are combined: `mean`, `product` or `mip`, see `mm.metrics.zero_shot`.
    """

    target: str
    templates: Sequence[str] = ("{}",)
    class_names: Mapping[str, str] = field(default_factory=dict)
    combine: str = "mean"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self | None:
        """Return the prompts that a config describes; None if its target is not set."""
        return None if config.get("target") is None else cls(**config)


def check_alignment(task: Task, data: DataSource) -> None:
    """Check the targets and prompts of a contrastive task against the data. Other tasks are not checked.

    Raises:
        ValueError: If a target is missing or has another kind, or if prompts are invalid or can't be read by the model.
    """
    if not isinstance(task, Contrastive):
        return
    if task.label is not None:
        check_class_target(data, "task.label", task.label)
    if task.group is not None:
        check_class_target(data, "task.group", task.group)
    prompts = ClassPrompts.from_config(task.zero_shot)
    if prompts is None:
        return
    check_prompts(prompts, data, task.model)
    if prompts.combine != "mip" and any(len(group) > 2 for group in task.names):
        rank_zero_warn(
            "task.loss compares all inputs of a row at once, so that an input and a text alone need not lie close: "
            "task.zero_shot.combine=mip is what goes with it, and recall of single inputs means nothing"
        )


def check_prompts(prompts: ClassPrompts, data: DataSource, model: MultimodalModel) -> None:
    """Check that prompts fit the data and the model.

    Raises:
        ValueError: If the prompts are invalid, or if the model has no text input.
    """
    if prompts.combine == "joint":
        raise ValueError("zero_shot.combine=joint is now zero_shot.combine=mip")
    if prompts.combine not in COMBINE:
        raise ValueError(f"zero_shot.combine: got '{prompts.combine}', wanted one of {', '.join(COMBINE)}")
    if not prompts.templates:
        raise ValueError("zero_shot.templates: got none, wanted at least one, such as '{}'")
    for template in prompts.templates:
        if template.count("{}") != 1:
            raise ValueError(f"zero_shot.templates: got '{template}', wanted one {{}} where the class stands")
    classes = check_class_target(data, "zero_shot.target", prompts.target).classes
    for name in prompts.class_names:
        if str(name) not in classes:
            known = listing(classes)
            raise ValueError(f"zero_shot.class_names: no class '{name}' in '{prompts.target}', there are {known}")
    if isinstance(model.fusion, Towered):
        raise ValueError("zero_shot: the model aligns towers of inputs, and prompts are a text alone; leave it out")
    if not any(modality == "text" for modality in input_modalities(data, model.inputs).values()):
        raise ValueError(f"zero_shot: prompts are texts, but the inputs are {', '.join(model.inputs)}")


def check_class_target(data: DataSource, option: str, target: str) -> TargetData:
    """Return the facts about a target of one class per row.

    Args:
        data: The data.
        option: Config key or argument that names the target, for error messages.
        target: Name of the target.

    Raises:
        ValueError: If the data lacks the target, or if it does not have one class per row.
    """
    if target not in data.targets:
        raise ValueError(
            f"{option}: got '{target}', the data has {', '.join(data.targets) or 'no target'}"
            f"{near(target, data.targets)}"
        )
    if data.spec.targets[target].kind != "class":
        raise ValueError(f"{option}: '{target}' is no target of one class per row")
    return data.spec.targets[target]


def input_modalities(data: DataSource, inputs: Sequence[str]) -> dict[str, str]:
    """Return the modality of each given input that the data has."""
    known = data.spec.inputs
    return {name: known[name].modality for name in inputs if name in known}


def zero_shot_after_training(task: Task, data: DataSource) -> dict[str, float]:
    """Return the zero-shot accuracies of the last test of a task, with the prompts of its own settings.

    The result is empty if the task is not contrastive, or has no prompts.
    """
    if not isinstance(task, Contrastive) or task.loss is None:
        return {}
    return zero_shot_metrics(task, data, ClassPrompts.from_config(task.zero_shot), task.loss.temperature().item())


def zero_shot_metrics(
    task: Contrastive, data: DataSource, prompts: ClassPrompts | None, logit_scale: float
) -> dict[str, float]:
    """Compute the zero-shot accuracies of the last test of a task.

    Args:
        task: A contrastive task that has been tested.
        data: The data on which it was tested.
        prompts: Prompts of the classes; None: the result is empty.
        logit_scale: Trained factor on the similarities.

    Returns:
        `test[INPUT]/zero_shot_accuracy` for every input and for all inputs that are not texts together, and the
        accuracy of random guesses, `test/zero_shot_chance`.
    """
    if prompts is None:
        return {}
    assert task.embedded is not None
    vectors, present, row = task.embedded
    inputs, modalities = task.model.inputs, input_modalities(data, task.model.inputs)
    target = check_class_target(data, "zero_shot.target", prompts.target)
    truth = data.targets[prompts.target][row]
    text = next(name for name, modality in modalities.items() if modality == "text")
    classes = embed_classes(task.model, data, prompts, text)
    metrics = {"test/zero_shot_chance": 1 / len(target.classes)}
    for part in input_subsets(inputs, [name for name, modality in modalities.items() if modality != "text"]):
        index = [inputs.index(name) for name in part]
        rows = present[:, index].any(1) & (truth >= 0)
        if rows.any():
            scores = class_scores(
                vectors[rows][:, index], present[rows][:, index], classes, prompts.combine, logit_scale
            )
            right = (scores.argmax(1) == truth[rows]).double().mean()
            metrics[f"{section('test', part, inputs)}/zero_shot_accuracy"] = float(right)
    return metrics


def embed_classes(
    model: MultimodalModel, data: DataSource, prompts: ClassPrompts, input: str, projected: bool = True
) -> Tensor:
    """Embed the prompts of each class.

    Args:
        model: The model.
        data: Data with the transforms of the model.
        prompts: The prompts.
        input: Name of the text input whose encoder reads the prompts.
        projected: Whether to project the vectors to the model's width, rather than to return those of the encoder.

    Returns:
        One unit vector per class, (C, D).
    """
    classes = check_class_target(data, "zero_shot.target", prompts.target).classes
    names = {str(key): str(value) for key, value in prompts.class_names.items()}
    texts = [t.replace("{}", names.get(c, c)) for c in classes for t in prompts.templates]
    if is_first_process():
        log.info(
            f"zero-shot: each class is described by {len(prompts.templates)} prompts, the first '{plain(texts[0])}'"
        )
    vectors = embed_texts(model, data.transforms[input], input, texts, projected)
    return class_vectors(vectors.view(len(classes), len(prompts.templates), -1))


def input_subsets(inputs: Sequence[str], together: Sequence[str]) -> list[tuple[str, ...]]:
    """Return each input alone, and the inputs of `together` as one subset."""
    return list(dict.fromkeys([*((name,) for name in inputs), *([tuple(together)] if together else [])]))


@torch.no_grad()
def embed_texts(
    model: MultimodalModel, transform: Transform, input: str, texts: Sequence[str], projected: bool = True
) -> Tensor:
    """Embed texts with the encoder of one input.

    Args:
        model: The model, which is put into eval mode.
        transform: Transform of the input.
        input: Name of the input.
        texts: The texts.
        projected: Whether to project the vectors to the model's width, rather than to return those of the encoder.

    Returns:
        One unit vector per text, (N, D); for a text of several windows, the normalised mean of their vectors.
    """
    model.eval()
    device, part = next(model.parameters()).device, model.shared_encoders.get(input, input)
    vectors = []
    for start in range(0, len(texts), PROMPT_BATCH):
        samples = [
            Sample({input: transform(text)}, {}, i) for i, text in enumerate(texts[start : start + PROMPT_BATCH])
        ]
        batch = to_device(collate(samples, {input: transform}), device)
        # Only this encoder is called, since the other inputs are absent.
        pooled = model.encoders[part](batch.inputs[input], batch.masks[input]).pooled  # type: ignore[arg-type]
        unit = F.normalize(model.projections[part](pooled) if projected else pooled, dim=-1)
        vectors.append(directions(unit, torch.ones_like(batch.row).bool(), batch.row)[1].cpu())
    return torch.cat(vectors)
