"""Blocks of pictures are hidden, and told from the tokens of what is left."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.model import MultimodalModel
from mm.tasks.objectives._blocks import BlockDecoder, draw
from mm.tasks.pretraining import Objective, chosen, raw
from mm.types import Batch, Features


def centres(height: int, width: int, patch: int, down: int, across: int) -> Tensor:
    """(y, x) of the blocks, 0..1 of a picture of so many pixels. -> (down * across, 2)"""
    y = (torch.arange(down) + 0.5) * patch / height
    x = (torch.arange(across) + 0.5) * patch / width
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).flatten(0, 1)


class MaskedPatchObjective(Objective):
    """Hide blocks of pictures and reconstruct their pixels (SimMIM, Xie 2022), with any encoder of pictures.

    The loss is the mean absolute error of the hidden blocks' pixels, as the encoder reads them; a hidden block has the
    mean colour.

    Args:
        model: The model.
        patch: Side of a block in pixels.
        ratio: Part of the blocks that is hidden.
        inputs: Names of the inputs; None: all pictures.
        weight: Factor on the loss among those of several objectives.

    Raises:
        ValueError: If there is no picture, or a number is out of range.
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
            raise ValueError(f"task: got patch={patch}, ratio={ratio}, wanted a patch from 1 and a ratio in 0..1")
        self.inputs = chosen(model, "vision", inputs, "masked_patch")
        self.patch = patch
        self.ratio = ratio
        self.losses = dict.fromkeys(self.inputs, weight)
        decoders = {}
        for name in self.inputs:
            part = model.shared_encoders.get(name, name)
            channels = model.encoders[part].input.channels or 3
            decoders[name] = BlockDecoder(model.projections[part].out_features, channels * patch**2)
        self.decoders: Mapping[str, BlockDecoder] = nn.ModuleDict(decoders)  # type: ignore[assignment]

    def hide(self, batch: Batch, generator: torch.Generator | None) -> dict[str, tuple[Tensor | Features, Tensor]]:
        return {name: self.hide_blocks(name, raw(batch, name), generator) for name in self.inputs}

    def hide_blocks(self, name: str, x: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> the same with blocks of it hidden, which they are (B, N)"""
        down, across = x.shape[2] // self.patch, x.shape[3] // self.patch
        if down * across < 2:
            raise ValueError(
                f"task.objectives: got patch={self.patch}, but the pictures of '{name}' are {x.shape[2]}x{x.shape[3]} "
                "pixels, which has to be two blocks at least"
            )
        hidden = draw(torch.ones(len(x), down * across, dtype=torch.bool, device=x.device), self.ratio, generator)
        away = F.interpolate(hidden.view(-1, 1, down, across).to(x.dtype), scale_factor=self.patch)
        return x * (1 - F.pad(away, (0, x.shape[3] - away.shape[3], 0, x.shape[2] - away.shape[2]))), hidden

    def errors(
        self, batch: Batch, features: dict[str, Features], hidden: dict[str, Tensor]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: self.error(name, batch, of, hidden[name]) for name, of in features.items()}

    def error(self, name: str, batch: Batch, features: Features, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """-> sum over hidden blocks of the rows that have the input, their count"""
        x: Any = batch.inputs[name]
        height, width = x.shape[2:]
        down, across = height // self.patch, width // self.patch
        told = self.decoders[name](features, centres(height, width, self.patch, down, across).to(x.device))
        truth = F.unfold(x[:, :, : down * self.patch, : across * self.patch].float(), self.patch, stride=self.patch)
        distance = (told.float() - truth.transpose(1, 2)).abs().mean(2)  # (B, N)
        counts = hidden & features.mask.any(1, keepdim=True)
        return (distance * counts).sum(), counts.sum()
