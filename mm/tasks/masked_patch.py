"""Learn from pictures without labels: blocks of them are hidden, and told from the tokens of what is left."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.model import MultimodalModel
from mm.tasks.base import Task, mean_losses
from mm.tasks.supervised import Mean
from mm.types import Batch, Features


def hide(rows: int, blocks: int, ratio: float, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """As many blocks of each row, at least one, and never all. -> (rows, blocks) bool"""
    count = min(max(1, round(ratio * blocks)), blocks - 1)
    lot = torch.rand(rows, blocks, generator=generator).to(device)
    return lot.argsort(1).argsort(1) < count


def centres(height: int, width: int, patch: int, down: int, across: int) -> Tensor:
    """(y, x) of the blocks, 0..1 of a picture of so many pixels. -> (down * across, 2)"""
    y = (torch.arange(down) + 0.5) * patch / height
    x = (torch.arange(across) + 0.5) * patch / width
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).flatten(0, 1)


class BlockDecoder(nn.Module):
    """The pixels of each block, from the token that lies nearest and from where the block lies beside it."""

    def __init__(self, dim: int, pixels: int):
        super().__init__()
        self.offset = nn.Linear(2, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, pixels))

    def forward(self, features: Features, places: Tensor) -> Tensor:
        """places (N, 2) -> (B, N, pixels)"""
        distance = torch.cdist(places.expand(len(features.position), -1, -1).float(), features.position.float())
        distance = distance.masked_fill(~features.mask.unsqueeze(1), torch.inf)
        nearest = distance.argmin(2)  # (B, N)
        tokens = features.tokens.gather(1, nearest.unsqueeze(-1).expand(-1, -1, features.tokens.shape[2]))
        beside = places - features.position.gather(1, nearest.unsqueeze(-1).expand(-1, -1, 2))
        return self.mlp(tokens + self.offset(beside.to(tokens.dtype)))


class MaskedPatch(Task):
    """SimMIM (Xie 2022) with any encoder of pictures, spectrograms as pictures among them.

    The mean absolute error of hidden blocks' pixels, as the encoder reads them, is made small; a hidden block is of the
    mean colour. patch: pixels of a block's side; ratio: part of the blocks that is hidden. What decodes is not kept.
    Errors: ValueError where an input is no picture, or a number is out of range.
    """

    reads_heads = False

    def __init__(self, model: MultimodalModel, *args: Any, patch: int, ratio: float, **kwargs: Any):
        super().__init__(model, *args, **kwargs)
        if patch < 1 or not 0 < ratio < 1:
            raise ValueError(f"task: got patch={patch}, ratio={ratio}, wanted a patch from 1 and a ratio in 0..1")
        learning = [n for n, p in model.fusion.named_parameters() if p.requires_grad]  # type: ignore[attr-defined]
        if learning:
            raise ValueError(
                "task=masked_patch looks at inputs before they are fused: nothing would train model.fusion; leave "
                "model/fusion out, or set model/fusion=sum"
            )
        decoders = {}
        for name in model.inputs:
            part = model.share.get(name, name)
            spec = model.encoders[part].input
            if spec.modality != "vision":
                raise ValueError(
                    f"task=masked_patch hides blocks of pictures, but the input '{name}' is {spec.modality}; leave it "
                    "out with datamodule.inputs=[...]"
                )
            decoders[name] = BlockDecoder(model.projections[part].out_features, (spec.channels or 3) * patch**2)
        self.patch = patch
        self.ratio = ratio
        self.decoders: Mapping[str, BlockDecoder] = nn.ModuleDict(decoders)  # type: ignore[assignment]
        self.means: Mapping[str, Mapping[str, Mean]] = nn.ModuleDict(  # type: ignore[assignment]
            {split: nn.ModuleDict({name: Mean() for name in model.inputs}) for split in ("val", "test")}
        )
        self.results: dict[str, float] = {}  # of the last test: name -> number
        self.figures: dict[str, Any] = {}
        self.decoded: dict[int, Any] = {}

    def losses(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor, float]]:
        return self.measure(batch, None)

    def measure(self, batch: Batch, generator: torch.Generator | None) -> dict[str, tuple[Tensor, Tensor, float]]:
        """generator: draws what is hidden; None: torch's own."""
        hidden: dict[str, Tensor] = {}
        shown: dict[str, Tensor] = {}
        for name, x in batch.inputs.items():
            if not isinstance(x, Tensor):
                raise ValueError(f"task=masked_patch: the encoder of '{name}' is frozen: nothing of it would learn")
            down, across = x.shape[2] // self.patch, x.shape[3] // self.patch
            if down * across < 2:
                raise ValueError(
                    f"task.patch: got {self.patch}, but the pictures of '{name}' are {x.shape[2]}x{x.shape[3]} pixels, "
                    "which has to be two blocks at least"
                )
            hidden[name] = hide(len(x), down * across, self.ratio, generator, x.device)
            cells = hidden[name].view(-1, 1, down, across).to(x.dtype)
            away = F.interpolate(cells, scale_factor=self.patch)
            shown[name] = x * (1 - F.pad(away, (0, x.shape[3] - away.shape[3], 0, x.shape[2] - away.shape[2])))
        features = self.model.encode(shown, batch.masks)
        return {name: (*self.error(name, batch, features[name], hidden[name]), 1.0) for name in hidden}

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

    def train_losses(self) -> dict[str, Tensor]:
        return mean_losses("train", self._losses)

    def val_names(self) -> dict[str, bool | None]:
        several = self.model.inputs if len(self.model.inputs) > 1 else []
        names: dict[str, bool | None] = {"val/loss": False}
        return names | {f"val/{name}/loss": False for name in several}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.update("val", batch, batch_idx)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.update("test", batch, batch_idx)

    def update(self, split: str, batch: Batch, batch_idx: int) -> None:
        """The same blocks are hidden whenever a split is measured."""
        for name, (total, count, _) in self.measure(batch, torch.Generator().manual_seed(batch_idx)).items():
            self.means[split][name].update(total, count)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.compute("val"))

    def on_test_epoch_end(self) -> None:
        values = self.compute("test")
        self.results = {name: float(value) for name, value in values.items()}
        self.log_dict(values)

    def compute(self, split: str) -> dict[str, Tensor]:
        """Name -> value; then everything starts anew."""
        means = self.means[split]
        values = mean_losses(
            split, {n: (mean.compute(), torch.ones_like(mean.count), 1.0) for n, mean in means.items()}
        )
        for mean in means.values():
            mean.reset()
        return values
