"""Trained models that act as teachers of single inputs (`task.distillation`)."""

from collections.abc import Mapping

from omegaconf import DictConfig

from mm import checkpoint
from mm.configurable import to_config
from mm.messages import near
from mm.model import MultimodalModel
from mm.tasks.unimodal import Distillation
from mm.transforms.text.tokens import TextTransform
from mm.types import Transform

# Keys of a transform that affect training only, and not the tensors that the encoder reads.
FREE = ("augment", "pad_multiple", "overflow", "window_overlap", "tokenizer")


def load_teachers(cfg: DictConfig, transforms: Mapping[str, Transform]) -> dict[str, Distillation]:
    """Load the trained models that `task.distillation.teachers` names.

    Args:
        cfg: The config.
        transforms: Input name to the transform of the model that is trained.

    Returns:
        The argument `distillation` of the task, with the loaded teachers; empty if there are no teachers.

    Raises:
        ValueError: If an input is unknown, if a path is not a model directory, or if a teacher reads its input with
            another transform or tokenizer.
    """
    config = cfg.task.get("distillation") or {}
    chosen: dict[str, str] = dict(config.get("teachers") or {})
    teachers: dict[str, MultimodalModel] = {}
    for name, path in chosen.items():
        if name not in transforms:
            raise ValueError(
                f"task.distillation.teachers: there is no input '{name}', only {', '.join(transforms)}"
                f"{near(name, transforms)}"
            )
        loaded = checkpoint.load(path, list(cfg.allow))
        if name not in loaded.transforms:
            raise ValueError(
                f"task.distillation.teachers.{name}: {path} reads {', '.join(loaded.transforms)}, not {name}"
            )
        ours, theirs = to_config(transforms[name]), to_config(loaded.transforms[name])
        for key in dict.fromkeys([*ours, *theirs]):
            if key not in FREE and ours.get(key) != theirs.get(key):
                raise ValueError(
                    f"task.distillation.teachers.{name}: it was trained with {key}={theirs.get(key)}, this run reads "
                    f"{name} with {ours.get(key)}; set datamodule.transforms.{name}.{key}, or train it anew"
                )
        if vocabulary(transforms[name]) != vocabulary(loaded.transforms[name]):
            raise ValueError(
                f"task.distillation.teachers.{name}: its tokenizer is another one; train it anew with this run's"
            )
        teachers[name] = loaded.model
    return {"distillation": Distillation(teachers, config["weight"])} if teachers else {}


def vocabulary(transform: Transform) -> dict[str, int] | None:
    """Return the vocabulary, token to id, of a text transform; None for bytes and for inputs that are not text."""
    return transform.tokenizer.get_vocab() if isinstance(transform, TextTransform) and transform.tokenizer else None
