"""Collation: encoded samples to one padded Batch with masks.

Shapes: B rows of the batch (one per window), T tokens or time steps, D width, C channels, H height, W width.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import default_collate

from mm.tensors import unlabelled_value
from mm.types import Batch, EncodedInput, Features, Transform

# Keys of meta with one value per row, padded with 0; the others have one per token and are padded with -1.
PER_ROW_META = ("characters", "frame", "size", "sample")


class Sample(NamedTuple):
    """One encoded row."""

    inputs: dict[str, EncodedInput | None]  # None: the input is absent
    targets: dict[str, Tensor | list[Tensor]]  # a list has one tensor per window
    row: int


def is_absent(raw: Any) -> bool:
    """Return whether a raw value means that the row lacks the input: None or an empty text."""
    return raw is None or (isinstance(raw, str) and not raw)


def collate(samples: Sequence[Sample], transforms: Mapping[str, Transform]) -> Batch:
    """Collate samples into a Batch: pad all inputs to the longest one and create their masks.

    A sample with several windows becomes several rows of the batch, which have the same `row` and, except for targets
    per window, the same targets.

    Args:
        samples: The samples.
        transforms: Input name to transform, for the dummy tensor of absent inputs and the padding.
    """
    # a row without any input also becomes one row
    windows = [max([1, *(len(r.windows) for r in s.inputs.values() if r is not None)]) for s in samples]
    inputs, masks, meta = {}, {}, {}
    for name, transform in transforms.items():
        items: list[Any] = []
        present: list[bool] = []
        described: list[Mapping[str, Tensor]] = []
        for sample, count in zip(samples, windows, strict=True):
            read = sample.inputs[name]
            parts = [] if read is None else read.windows
            for k in range(count):
                # an input with a single window is repeated for every window of the others
                here = bool(parts) and (len(parts) == 1 or k < len(parts))
                items.append(parts[k if len(parts) > 1 else 0] if here else transform.filler)
                present.append(here)
                told = read.meta if read is not None and here and transform.meta else None
                described.append(transform.meta if told is None else told[k if len(parts) > 1 else 0])
        features = isinstance(transform.filler, Features)
        padded = join_features(items) if features else pad(items, torch.tensor(present), transform.multiple)
        inputs[name], masks[name] = padded
        for key in transform.meta:
            meta[f"{name}/{key}"] = pad_sequence(
                [one[key] for one in described], True, 0 if key in PER_ROW_META else -1
            )
    targets = {name: join_targets([s.targets[name] for s in samples], windows) for name in samples[0].targets}
    row = torch.tensor([s.row for s in samples]).repeat_interleave(torch.tensor(windows))
    if max(windows) > 1:
        meta["sample"] = torch.arange(len(samples)).repeat_interleave(torch.tensor(windows))
    return Batch(inputs, masks, targets, row, meta)


def join_targets(targets: Sequence[Tensor | list[Tensor]], windows: Sequence[int]) -> Tensor:
    """Stack the targets of samples, and repeat them for each window.

    Targets of different lengths are padded with the value for "unlabelled".

    Args:
        targets: Target of each sample; a list has one tensor per window.
        windows: Number of windows of each sample.

    Returns:
        The targets, (B, ...).
    """
    if all(isinstance(target, Tensor) for target in targets):
        plain: Any = list(targets)
        alike = len({target.shape for target in plain}) == 1
        rows = torch.stack(plain) if alike else pad_sequence(plain, True, unlabelled_value(plain[0]))
        return rows.repeat_interleave(torch.tensor(windows), 0)
    parts: list[Tensor] = []
    for target, count in zip(targets, windows, strict=True):
        own = target if isinstance(target, list) else [target]
        # additional windows, which another input has, are unlabelled
        parts += [*own, *(torch.full_like(own[0], unlabelled_value(own[0])) for _ in range(count - len(own)))]
    return pad_sequence(parts, batch_first=True, padding_value=unlabelled_value(parts[0]))


def finish(batch: Batch, transforms: Mapping[str, Transform]) -> Batch:
    """Apply the last step of each transform to a batch that is already on its device.

    Images are transferred as uint8, which takes a quarter of the memory of float32, and are normalised here.

    Args:
        batch: The batch, on its device.
        transforms: Input name to transform.

    Returns:
        The batch as the encoders expect it.
    """
    done = {name: transforms[name].finish(x) if isinstance(x, Tensor) else x for name, x in batch.inputs.items()}
    return batch._replace(inputs=done)


def join_features(items: Sequence[Features]) -> tuple[Features, Tensor]:
    """Pad the Features of single rows, (T, D) each, to the longest and stack them.

    Returns:
        Features of the batch, and their mask (B, T).
    """
    parts = {f: pad_sequence([getattr(x, f) for x in items], batch_first=True) for f in ("tokens", "mask", "position")}
    return Features(pooled=torch.stack([x.pooled for x in items]), **parts), parts["mask"]


def pad(items: Sequence[Tensor], present: Tensor, multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Stack images of shape (C, H, W), or pad sequences of shape (T,) or (T, k) with zeros and stack them.

    Args:
        items: The tensors.
        present: Whether each row has the input, (B,) bool.
        multiple: The padded length T is rounded up to a multiple of this number.

    Returns:
        The tensors (B, ...), and their mask, (B, 1) bool for images and (B, T) bool for sequences.
    """
    if items[0].dim() == 3:
        return default_collate(list(items)), present.unsqueeze(1)  # in a worker directly into shared memory
    lengths = [x.shape[0] for x in items]
    whole = -(-max(lengths) // multiple) * multiple
    mask = torch.arange(whole) < (torch.tensor(lengths) * present).unsqueeze(1)
    ahead = (0, 0) * (items[0].dim() - 1)
    padded = [x if n == whole else F.pad(x, (*ahead, 0, whole - n)) for x, n in zip(items, lengths)]
    return default_collate(padded), mask
