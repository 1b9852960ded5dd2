"""Augmentation of single samples in training, with transforms of torchvision and torchaudio."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

MARK = (0.5, 0.25)  # width and height of the mark in the top left corner; not square, to detect rotations by 90 degrees
EPSILON = 1e-3  # tolerance, as a fraction of the image side


class AugmentError(ValueError):
    """Raised if an augmentation fails.

    The fault lies in the augmentation and not in the sample, so the sample must not be skipped: that would hide the
    fault.
    """


def augmented(augment: Sequence[Any], x: Tensor) -> Tensor:
    """Apply augmentations to a sample, one after the other.

    Args:
        augment: The augmentations: functions from a tensor to a tensor, or to a tuple whose first element is the
            tensor.
        x: The sample.

    Raises:
        AugmentError: If an augmentation raises an error or does not return a tensor.
    """
    for one in augment:
        try:
            out = one(x)
        except Exception as error:  # other people's code may raise anything
            raise AugmentError(f"{failed(one, x)} raised {type(error).__name__}: {error}") from error
        x = out[0] if isinstance(out, tuple) else out  # torchaudio's SpeedPerturbation also returns lengths
        if not isinstance(x, Tensor):
            raise AugmentError(f"{failed(one)} gave {type(x).__name__}, wanted a tensor")
    return x


def tracked(augment: Sequence[Any], x: Tensor) -> tuple[Tensor, Tensor]:
    """Apply torchvision v2 transforms to an image and track the region of the image that the result shows.

    The region is found from two bounding boxes (marks) that are transformed together with the pixels.

    Args:
        augment: The transforms, applied one after the other.
        x: Pixels, (C, H, W).

    Returns:
        The pixels, and the region (4,): x0, y0, x1, y1 as fractions of the width and height of the image before. A
        value below 0 or above 1 lies outside of the image. x0 exceeds x1, or y0 exceeds y1, if the image is mirrored.

    Raises:
        AugmentError: If a transform fails, or if it rotates, shears or distorts the image.
    """
    from torchvision import tv_tensors  # slow to import, and needed only if positions are tracked

    height, width = x.shape[-2:]
    boxes = torch.tensor([[1, 1], MARK]) * torch.tensor([width, height])
    boxes = torch.cat([torch.zeros(2, 2), boxes], dim=1)  # the whole image, and the mark
    how: Any = {"format": "XYXY", "canvas_size": (height, width), "clamping_mode": None}
    marks: Any = tv_tensors.BoundingBoxes(boxes, **how)
    for one in augment:
        try:
            x, marks = one(tv_tensors.Image(x), marks)
        except Exception as error:  # other people's code may raise anything
            raise AugmentError(
                f"{failed(one, x)} raised {type(error).__name__}: {error}; the target has boxes, so that only "
                "transforms of torchvision.transforms.v2 that also transform bounding boxes can be used"
            ) from error
        if not upright(marks):
            raise AugmentError(
                f"{failed(one)} turns, shears or bends the picture, or leaves out boxes, so that boxes can't follow; "
                "crops, shifts, changes of scale, mirroring and colour are fine"
            )
    start, side, part, _ = measured(marks)
    end = torch.tensor([x.shape[-1], x.shape[-2]])
    shown = torch.stack([-start, end - start]) / side  # (2, 2): x and y of both corners
    shown = torch.where(part > EPSILON, 1 - shown, shown)  # the image is mirrored if the mark has left its corner
    return x.as_subclass(Tensor), shown.flatten().float()


def measured(marks: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the position and size of the transformed image, and those of the mark relative to it.

    Args:
        marks: Boxes of the whole image and of the mark, (2, 4).

    Returns:
        Start (x, y) and size of the image in pixels, and start and size of the mark as fractions of the image, (2,)
        each.
    """
    (start, end), (low, high) = marks.as_subclass(Tensor).double().view(2, 2, 2)
    side = end - start
    return start, side, (low - start) / side, (high - low) / side


def upright(marks: Tensor) -> bool:
    """Return whether the image is neither rotated nor distorted.

    This is so if the mark has its original size relative to the image and lies in one of the image's corners.

    Args:
        marks: Boxes of the whole image and of the mark, (2, 4).
    """
    if marks.shape != (2, 4):
        return False
    _, side, start, size = measured(marks)
    rest = 1 - torch.tensor(MARK)
    corner = (start.abs() < EPSILON) | ((start - rest).abs() < EPSILON)
    return bool(((side > 0) & corner & ((size - torch.tensor(MARK)).abs() < EPSILON)).all())


def failed(one: Any, x: Tensor | None = None) -> str:
    """Return the description of an augmentation for an error message.

    Args:
        one: The augmentation.
        x: The sample that it failed on; None: it is left out of the description.
    """
    on = "" if x is None else f" on {x.dtype} of shape {tuple(x.shape)}"
    return f"the augmentation {getattr(one, '__name__', type(one).__name__)}{on}"
