"""What every encoder has to keep."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mm.absence import encode_present
from mm.contracts._demands import (
    ROWS,
    Result,
    absence,
    compiles,
    demand,
    exports,
    give_attributes,
    gradients,
    run,
    same_features,
    shapes,
    weighted,
)
from mm.types import Features, InputSpec

# Steps of padding that must not change anything; no multiple of a hop.
EXTRA = {"text": 7, "audio": 1007, "tabular": 3}


def random_input(spec: InputSpec, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """Random raw tensors of one input, the first row full, with room for EXTRA below max_length. -> x, mask"""
    if spec.modality == "vision":
        height, width = spec.size or (32, 32)
        return torch.randn(rows, spec.channels or 3, height, width), torch.ones(rows, 1, dtype=torch.bool)
    longest = {"text": 12, "tabular": 2 * len(spec.sizes or ())}.get(spec.modality, (spec.sample_rate or 8000) // 2)
    if spec.max_length is not None:
        longest = min(longest, spec.max_length - EXTRA[spec.modality])
    length = torch.randint(max(1, longest // 2), longest + 1, (rows,))
    length[0] = longest
    mask = torch.arange(longest) < length.unsqueeze(1)
    if spec.modality == "tabular":
        return random_cells(spec, rows, longest) * mask.unsqueeze(-1), mask
    x = torch.randint(1, 257, (rows, longest)) if spec.modality == "text" else torch.randn(rows, longest) * 0.1
    for place, marker in enumerate((spec.markers or {}).values()):
        x[:, place] = marker
    return x * mask, mask


def random_cells(spec: InputSpec, rows: int, count: int) -> Tensor:
    """Of a table, columns in their order, the first row's all of them twice. -> (rows, count, 3)"""
    sizes = torch.tensor(spec.sizes)
    column = torch.randint(len(sizes), (rows, count)).sort(1).values
    column[0] = torch.arange(count) * len(sizes) // count
    place = (torch.rand(rows, count) * sizes[column]).long()
    number = torch.randn(rows, count) * (sizes[column] == 0)
    return torch.stack([column.float(), place.float(), number], dim=-1)


def lengthen(x: Tensor, extra: int) -> Tensor:
    """A sequence with more steps, of zeros. (B, T), or (B, T, k)"""
    return F.pad(x, (*[0, 0] * (x.dim() - 2), 0, extra))


def refill(spec: InputSpec, x: Tensor, mask: Tensor) -> Tensor:
    """`x` with other values where masked."""
    if spec.modality == "tabular":
        return torch.where(mask.unsqueeze(-1), x, random_cells(spec, *mask.shape))
    keep = mask if x.dim() == 2 else mask.view(-1, 1, 1, 1)
    return torch.where(keep, x, torch.randn_like(x) * 0.1 if x.is_floating_point() else torch.randint_like(x, 1, 257))


def buffers_after(encoder: Any, x: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Return the buffers of a copy of an encoder after one forward in training mode, as the model runs it."""
    module = deepcopy(encoder).train()
    encode_present(module, module, x, mask)
    return dict(module.named_buffers())


def statistics(encoder: Any, x: Tensor, mask: Tensor, present: Tensor) -> None:
    """Fail where absent rows move what an encoder remembers of its batches, such as running statistics."""
    some = mask & present.unsqueeze(1)
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    pairs = [
        ("absent rows", buffers_after(encoder, x, some), buffers_after(encoder, x[present], mask[present])),
        ("a batch without a present row", buffers_after(encoder, x, mask & False), before),
    ]
    for cause, after, wanted in pairs:
        moved = [name for name, buffer in after.items() if not torch.allclose(buffer.float(), wanted[name].float())]
        demand(
            not moved,
            f"in training, {cause} changed {', '.join(moved)}; update a buffer from the rows with mask.any(1) only",
        )


def check_encoder(encoder: Any) -> list[Result]:
    """All checks of an encoder, on random input of its InputSpec."""
    torch.manual_seed(0)
    give_attributes(encoder)
    encoder.eval()
    spec, width = encoder.input, encoder.embed_dim
    x, mask = random_input(spec)
    present = torch.tensor([True, False] * (ROWS // 2))
    some = mask & present.unsqueeze(1)

    def padding() -> None:
        wider, longer = (lengthen(t, EXTRA[spec.modality]) for t in (mask, x))
        padded = encoder(refill(spec, longer, wider), wider)
        same_features(padded, encoder(x, mask), "padded")

    def influence() -> None:
        before = encoder(x, mask)
        same_features(encoder(refill(spec, x, mask), mask), before, "with other filler in padding")
        after = encoder(refill(spec, x, some), some)
        same_features(
            Features(*(t[present] for t in after)), Features(*(t[present] for t in before)), "absent rows added"
        )
        demand(
            (encoder(refill(spec, x, mask & False), mask).pooled - before.pooled).abs().max() > 1e-6,
            "input has no influence",
        )

    checks: dict[str, Callable[[], None]] = {
        "shapes": lambda: shapes(encoder(x, mask), ROWS, width),
        "padding": padding,
        "absence": lambda: absence(encoder(refill(spec, x, some), some), present),
        "nobody": lambda: absence(encoder(x, mask & False), present & False),
        "influence": influence,
        "statistics": lambda: statistics(encoder, refill(spec, x, some), mask, present),
        "export": lambda: exports(encoder, (x, mask), (refill(spec, x, some), some)),
        "compile": lambda: compiles(encoder, (x, mask)),
    }
    if spec.modality == "vision":
        del checks["padding"]  # an image has no time axis
    with torch.no_grad():
        results = run(checks)
    return results + run({"gradients": lambda: gradients(encoder, lambda m: weighted(m(*random_input(spec))))})
