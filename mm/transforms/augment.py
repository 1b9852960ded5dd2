"""Augmentation: third parties' transforms on one sample, in training only."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

MARK = (0.5, 0.25)  # width and height of a part in the top left corner: a quarter turn shows, too
EPSILON = 1e-3  # of a picture's side


class AugmentError(ValueError):
    """The augmentation is at fault, not the sample: leaving the sample out would hide it."""


def augmented(augment: Sequence[Any], x: Tensor) -> Tensor:
    """Each in turn. Errors: AugmentError naming the one that fails or gives no tensor."""
    for one in augment:
        try:
            out = one(x)
        except Exception as error:  # other people's code may raise anything
            raise AugmentError(f"{failed(one, x)} raised {type(error).__name__}: {error}") from error
        x = out[0] if isinstance(out, tuple) else out  # torchaudio's SpeedPerturbation gives lengths as well
        if not isinstance(x, Tensor):
            raise AugmentError(f"{failed(one)} gave {type(x).__name__}, wanted a tensor")
    return x


def tracked(augment: Sequence[Any], x: Tensor) -> tuple[Tensor, Tensor]:
    """torchvision's v2 transforms, each in turn, on pixels (C, H, W). -> pixels, and what they show of those before

    That is (4,) x0, y0, x1, y1 in parts of the picture before, below 0 or above 1 where it shows more; where it is
    mirrored x0 is above x1, or y0 above y1. It is read off at marks that go the same way as the pixels.
    Errors: AugmentError naming one that fails, or after which the pixels are turned, sheared or bent.
    """
    from torchvision import tv_tensors  # slow to import, needed where something is told of places only

    height, width = x.shape[-2:]
    boxes = torch.tensor([[1, 1], MARK]) * torch.tensor([width, height])
    boxes = torch.cat([torch.zeros(2, 2), boxes], dim=1)  # the whole picture, and a part of it
    how: Any = {"format": "XYXY", "canvas_size": (height, width), "clamping_mode": None}
    marks: Any = tv_tensors.BoundingBoxes(boxes, **how)
    for one in augment:
        try:
            x, marks = one(tv_tensors.Image(x), marks)
        except Exception as error:  # other people's code may raise anything
            raise AugmentError(
                f"{failed(one, x)} raised {type(error).__name__}: {error}; where something is told of places in a "
                "picture, only transforms of torchvision.transforms.v2 that move boxes with the pixels are fine"
            ) from error
        if not upright(marks):
            raise AugmentError(
                f"{failed(one)} turns, shears or bends the picture, or leaves out boxes, so that boxes can't follow; "
                "crops, shifts, changes of scale, mirroring and colour are fine"
            )
    start, side, part, _ = measured(marks)
    end = torch.tensor([x.shape[-1], x.shape[-2]])
    shown = torch.stack([-start, end - start]) / side  # (2, 2): x and y of both ends
    shown = torch.where(part > EPSILON, 1 - shown, shown)  # mirrored, where the mark has left its corner
    return x.as_subclass(Tensor), shown.flatten().float()


def measured(marks: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Start and sides of the whole picture; and of the mark, in parts of these, start and sides. (2, 4) -> (2,) each"""
    (start, end), (low, high) = marks.as_subclass(Tensor).double().view(2, 2, 2)
    side = end - start
    return start, side, (low - start) / side, (high - low) / side


def upright(marks: Tensor) -> bool:
    """Whether the mark is as large a part of the picture as it was, and in one of its corners."""
    if marks.shape != (2, 4):
        return False
    _, side, start, size = measured(marks)
    rest = 1 - torch.tensor(MARK)
    corner = (start.abs() < EPSILON) | ((start - rest).abs() < EPSILON)
    return bool(((side > 0) & corner & ((size - torch.tensor(MARK)).abs() < EPSILON)).all())


def failed(one: Any, x: Tensor | None = None) -> str:
    """How a message names an augmentation."""
    on = "" if x is None else f" on {x.dtype} of shape {tuple(x.shape)}"
    return f"the augmentation {getattr(one, '__name__', type(one).__name__)}{on}"
