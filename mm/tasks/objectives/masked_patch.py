"""Masked image modelling: mask square blocks of an image and predict their pixels from the rest.

Shapes: B batch, C channels, H and W height and width in pixels, N blocks of an image.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.model import MultimodalModel
from mm.tasks.objectives._blocks import BlockDecoder, draw
from mm.tasks.pretraining import Objective, raw, select_inputs
from mm.types import Batch, Features


def centres(height: int, width: int, patch: int, down: int, across: int) -> Tensor:
    """Return the centres (y, x) of the blocks of an image, in 0..1.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        patch: Side of a block in pixels.
        down: Number of rows of blocks.
        across: Number of blocks per row.

    Returns:
        The centres, row by row, (down * across, 2).
    """
    y = (torch.arange(down) + 0.5) * patch / height
    x = (torch.arange(across) + 0.5) * patch / width
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).flatten(0, 1)


class MaskedPatchObjective(Objective):
    """Mask square blocks of images and reconstruct their pixels (SimMIM, Xie 2022), with any image encoder.

    The loss is the mean absolute error of the pixels of the masked blocks, normalised as the encoder reads them. A
    masked block is filled with zeros, which is the mean colour of normalised pixels.

    Args:
        model: The model.
        patch: Side of a block in pixels.
        ratio: Fraction of the blocks to mask, between 0 and 1.
        inputs: Names of the image inputs; None: all of them.
        weight: Weight of this loss in the sum of all objectives.

    Raises:
        ValueError: If the model has no image input, or if an argument is out of range.
    """

    def __init__(
        self,
        model: MultimodalModel,
        patch: int = 4,
        ratio: float = 0.6,
        inputs: Sequence[str] | None = None,
        weight: float = 1.0,
    ):
        super().__init__()
        if patch < 1 or not 0 < ratio < 1:
            raise ValueError(
                f"task.objectives: got patch={patch}, ratio={ratio}, wanted a patch from 1 and a ratio in 0..1"
            )
        self.inputs = select_inputs(model, "vision", inputs, "masked_patch")
        self.patch = patch
        self.ratio = ratio
        self.losses = dict.fromkeys(self.inputs, weight)
        decoders = {}
        for name in self.inputs:
            part = model.shared_encoders.get(name, name)
            channels = model.encoders[part].input.channels or 3
            decoders[name] = BlockDecoder(model.projections[part].out_features, channels * patch**2)
        self.decoders: Mapping[str, BlockDecoder] = nn.ModuleDict(decoders)  # type: ignore[assignment]

    def corrupt(self, batch: Batch, generator: torch.Generator | None) -> dict[str, tuple[Tensor | Features, Tensor]]:
        return {name: self.hide_blocks(name, raw(batch, name), generator) for name in self.inputs}

    def hide_blocks(self, name: str, x: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Mask random blocks of the images of an input.

        Args:
            name: Name of the input, for the error message.
            x: Normalised pixels, (B, C, H, W).
            generator: Random generator of the masks; None: torch's default generator.

        Returns:
            The pixels with zeros in the masked blocks, (B, C, H, W), and whether each block is masked, (B, N) bool.

        Raises:
            ValueError: If the images have fewer than two blocks.
        """
        down, across = x.shape[2] // self.patch, x.shape[3] // self.patch
        if down * across < 2:
            raise ValueError(
                f"task.objectives: got patch={self.patch}, but the pictures of '{name}' are {x.shape[2]}x{x.shape[3]} "
                "pixels, which has to be two blocks at least"
            )
        hidden = draw(torch.ones(len(x), down * across, dtype=torch.bool, device=x.device), self.ratio, generator)
        away = F.interpolate(hidden.view(-1, 1, down, across).to(x.dtype), scale_factor=self.patch)
        return x * (1 - F.pad(away, (0, x.shape[3] - away.shape[3], 0, x.shape[2] - away.shape[2]))), hidden

    def compute_loss(
        self, batch: Batch, features: dict[str, Features], hidden: dict[str, Tensor]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: self.error(name, batch, of, hidden[name]) for name, of in features.items()}

    def error(self, name: str, batch: Batch, features: Features, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the mean absolute error of the masked blocks of an input, and their number.

        Rows that lack the input do not count.

        Args:
            name: Name of the input.
            batch: The batch, with the complete images.
            features: Features of the images with masked blocks.
            hidden: Whether each block is masked, (B, N) bool.

        Returns:
            The sum and the number of masked blocks, both scalar tensors.
        """
        x: Any = batch.inputs[name]
        height, width = x.shape[2:]
        down, across = height // self.patch, width // self.patch
        told = self.decoders[name](features, centres(height, width, self.patch, down, across).to(x.device))
        truth = F.unfold(x[:, :, : down * self.patch, : across * self.patch].float(), self.patch, stride=self.patch)
        distance = (told.float() - truth.transpose(1, 2)).abs().mean(2)  # (B, N)
        counts = hidden & features.mask.any(1, keepdim=True)
        return (distance * counts).sum(), counts.sum()
