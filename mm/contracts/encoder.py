"""Contract of encoders."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
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
from mm.modalities import get_modality
from mm.types import Features, InputSpec


def random_input(spec: InputSpec, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """Return a random batch of one input and its mask; see `Modality.random_input`."""
    return get_modality(spec.modality).random_input(spec, rows)


def buffers_after(encoder: Any, x: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Return the buffers of a copy of an encoder after one forward pass in training mode.

    The copy is called as the model calls an encoder, by `encode_present`. The random numbers, such as those of dropout,
    are the same for each call with the same number of present rows.
    """
    module = deepcopy(encoder).train()
    with torch.random.fork_rng(devices=[]):  # the next call begins with the same random state
        encode_present(module, module, x, mask)
    return dict(module.named_buffers())


def statistics(encoder: Any, x: Tensor, mask: Tensor, present: Tensor) -> None:
    """Raise an AssertionError if absent rows change the buffers of an encoder, such as running statistics.

    Args:
        encoder: The encoder.
        x: Input of the encoder.
        mask: Mask of `x`, with all rows present.
        present: Whether each row stays present, (B,) bool; the other rows are made absent.
    """
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
    """Run all checks of an encoder on random inputs that fit its `InputSpec`."""
    torch.manual_seed(0)
    give_attributes(encoder)
    encoder.eval()
    spec, width = encoder.input, encoder.embed_dim
    x, mask = random_input(spec)
    modality = get_modality(spec.modality)
    refill = partial(modality.refill, spec)
    present = torch.tensor([True, False] * (ROWS // 2))
    some = mask & present.unsqueeze(1)

    def padding() -> None:
        wider, longer = (modality.lengthen(t) for t in (mask, x))
        padded = encoder(refill(longer, wider), wider)
        same_features(padded, encoder(x, mask), "padded")

    def influence() -> None:
        before = encoder(x, mask)
        same_features(encoder(refill(x, mask), mask), before, "with other filler in padding")
        after = encoder(refill(x, some), some)
        same_features(
            Features(*(t[present] for t in after)), Features(*(t[present] for t in before)), "absent rows added"
        )
        demand(
            (encoder(refill(x, mask & False), mask).pooled - before.pooled).abs().max() > 1e-6,
            "input has no influence",
        )

    checks: dict[str, Callable[[], None]] = {
        "shapes": lambda: shapes(encoder(x, mask), ROWS, width),
        "padding": padding,
        "absence": lambda: absence(encoder(refill(x, some), some), present),
        "nobody": lambda: absence(encoder(x, mask & False), present & False),
        "influence": influence,
        "statistics": lambda: statistics(encoder, refill(x, some), mask, present),
        "export": lambda: exports(encoder, (x, mask), (refill(x, some), some)),
        "compile": lambda: compiles(encoder, (x, mask)),
    }
    if not modality.is_sequence:
        del checks["padding"]
    with torch.no_grad():
        results = run(checks)
    return results + run({"gradients": lambda: gradients(encoder, lambda m: weighted(m(*random_input(spec))))})
