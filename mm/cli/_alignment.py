"""Classes told by prompts: of an aligned model's inputs, and of what a text encoder gives."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from mm.batching import Sample, collate
from mm.checkpoint import to_device
from mm.messages import is_first_process, listing, near, plain
from mm.metrics.zero_shot import COMBINE, class_vectors, zero_shot
from mm.model import MultimodalModel
from mm.tasks.base import Task
from mm.tasks.contrastive import Contrastive
from mm.tasks.measures import section
from mm.types import TargetData, Towered, Transform
from mm.windows import directions

PROMPTS = 256  # encoded at once
Seen = tuple[Tensor, Tensor, Tensor]  # vectors (R, N, D), presence (R, N), row (R,)


def check(task: Task, datamodule: Any) -> None:
    """Of a task that aligns. Errors: ValueError for what would be found out only in training or after it."""
    if not isinstance(task, Contrastive):
        return
    if task.label is not None:
        known(datamodule, "task.label", task.label)
    if task.group is not None:
        known(datamodule, "task.group", task.group)
    check_prompts(task.zero_shot, datamodule, task.model)
    asked = task.zero_shot.get("target") is not None and task.zero_shot["combine"] != "joint"
    if asked and any(len(group) > 2 for group in task.names):
        rank_zero_warn(
            "task.loss compares all inputs of a row at once, so that an input and a text alone need not lie close: "
            "task.zero_shot.combine=joint is what goes with it, and recall of single inputs tells nothing"
        )


def check_prompts(asked: Mapping[str, Any], datamodule: Any, model: MultimodalModel) -> None:
    """Errors: ValueError where prompts are asked for that can't be written, or read."""
    if asked.get("target") is None:
        return
    if asked["combine"] not in COMBINE:
        raise ValueError(f"zero_shot.combine: got '{asked['combine']}', wanted one of {', '.join(COMBINE)}")
    if not asked["templates"]:
        raise ValueError("zero_shot.templates: got none, wanted at least one, such as '{}'")
    for template in asked["templates"]:
        if template.count("{}") != 1:
            raise ValueError(f"zero_shot.templates: got '{template}', wanted one {{}} where the class stands")
    classes = known(datamodule, "zero_shot.target", asked["target"]).classes
    for name in asked["names"]:
        if str(name) not in classes:
            raise ValueError(f"zero_shot.names: no class '{name}' in '{asked['target']}', there are {listing(classes)}")
    if isinstance(model.fusion, Towered):
        raise ValueError("zero_shot: the model aligns towers of inputs, and prompts are a text alone; leave it out")
    if not any(modality == "text" for modality in modalities(datamodule, model.inputs).values()):
        raise ValueError(f"zero_shot: prompts are texts, but the inputs are {', '.join(model.inputs)}")


def known(datamodule: Any, option: str, target: str) -> TargetData:
    """What is known of a target of classes. Errors: ValueError where it is none."""
    spec = datamodule.table.spec.targets
    if target not in datamodule.table.targets:
        raise ValueError(
            f"{option}: got '{target}', the data has {', '.join(datamodule.table.targets) or 'no target'}"
            f"{near(target, datamodule.table.targets)}"
        )
    if spec[target].kind != "class":
        raise ValueError(f"{option}: '{target}' is no target of one class per row")
    return spec[target]


def modalities(datamodule: Any, inputs: Sequence[str]) -> dict[str, str]:
    """Of the inputs that the data has."""
    spec = datamodule.table.spec.inputs
    return {name: spec[name].modality for name in inputs if name in spec}


def told_after_training(task: Task, datamodule: Any) -> dict[str, float]:
    """As told, with what the task was built with; of another task nothing."""
    if not isinstance(task, Contrastive) or task.loss is None:
        return {}
    return told(task, datamodule, task.zero_shot, task.loss.temperature().item())


def told(task: Contrastive, datamodule: Any, asked: Mapping[str, Any], scale: float) -> dict[str, float]:
    """Zero-shot accuracy of the last test, for every input, and for all that are no text together.

    asked: target (None: nothing is), combine, templates, names; scale: of similarities, as learnt.
    """
    if asked.get("target") is None:
        return {}
    assert task.embedded is not None
    vectors, present, row = task.embedded
    inputs, kinds = task.model.inputs, modalities(datamodule, task.model.inputs)
    about = known(datamodule, "zero_shot.target", asked["target"])
    truth = datamodule.table.targets[asked["target"]][row]
    text = next(name for name, modality in kinds.items() if modality == "text")
    classes = told_classes(task.model, datamodule, asked, text)
    found = {"test/zero_shot_chance": 1 / len(about.classes)}
    for part in parts(inputs, [name for name, modality in kinds.items() if modality != "text"]):
        index = [inputs.index(name) for name in part]
        kept = present[:, index].any(1) & (truth >= 0)
        if kept.any():
            scores = zero_shot(vectors[kept][:, index], present[kept][:, index], classes, asked["combine"], scale)
            right = (scores.argmax(1) == truth[kept]).double().mean()
            found[f"{section('test', part, inputs)}/zero_shot_accuracy"] = float(right)
    return found


def told_classes(
    model: MultimodalModel, datamodule: Any, asked: Mapping[str, Any], name: str, projected: bool = True
) -> Tensor:
    """The unit vector of each class's prompts, as that text input reads them. -> (C, D)"""
    about = known(datamodule, "zero_shot.target", asked["target"])
    names = {str(key): str(value) for key, value in asked["names"].items()}
    prompts = [t.replace("{}", names.get(c, c)) for c in about.classes for t in asked["templates"]]
    if is_first_process():
        print(f"zero-shot: each class told by {len(asked['templates'])} prompts, the first '{plain(prompts[0])}'")
    read = embed_texts(model, datamodule.transforms[name], name, prompts, projected)
    return class_vectors(read.view(len(about.classes), len(asked["templates"]), -1))


def parts(inputs: Sequence[str], together: Sequence[str]) -> list[tuple[str, ...]]:
    """Every input, and those together."""
    return list(dict.fromkeys([*((name,) for name in inputs), *([tuple(together)] if together else [])]))


@torch.no_grad()
def embed_texts(
    model: MultimodalModel, transform: Transform, name: str, texts: Sequence[str], projected: bool = True
) -> Tensor:
    """Unit vectors of texts, as that input reads them; of several windows the mean. -> (texts, D)

    projected: to the model's width; else what the encoder itself gives.
    """
    model.eval()
    device, part = next(model.parameters()).device, model.share.get(name, name)
    found = []
    for start in range(0, len(texts), PROMPTS):
        reads = [Sample({name: transform(text)}, {}, i) for i, text in enumerate(texts[start : start + PROMPTS])]
        batch = to_device(collate(reads, {name: transform}), device)
        # This encoder alone: beside prompts the others would read filler.
        pooled = model.encoders[part](batch.inputs[name], batch.masks[name]).pooled  # type: ignore[arg-type]
        unit = F.normalize(model.projections[part](pooled) if projected else pooled, dim=-1)
        found.append(directions(unit, torch.ones_like(batch.row).bool(), batch.row)[1].cpu())
    return torch.cat(found)
