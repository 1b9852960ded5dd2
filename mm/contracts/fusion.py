"""Contract of fusions, checked for every subset of their inputs."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from mm.contracts._demands import (
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
from mm.types import Features


def random_features(rows: int, steps: int, width: int, present: Tensor | None = None) -> Features:
    """Return random Features whose present rows have at least one token that is not padding.

    Args:
        rows: Number of rows B.
        steps: Number of tokens T.
        width: Width D.
        present: Whether each row is present, (B,) bool; None: all rows are present.
    """
    length = torch.randint(1, steps + 1, (rows, 1))
    length[0] = steps
    mask = torch.arange(steps) < length
    if present is not None:
        mask = mask & present.unsqueeze(1)
    pooled = torch.randn(rows, width) * mask.any(1, keepdim=True)
    return Features(torch.randn(rows, steps, width), mask, pooled, torch.rand(rows, steps, 2))


def other_filler(f: Features) -> Features:
    """Return Features with random tokens and positions in the padding, and otherwise unchanged."""
    keep = f.mask.unsqueeze(-1)
    tokens = torch.where(keep, f.tokens, torch.randn_like(f.tokens))
    return f._replace(tokens=tokens, position=torch.where(keep, f.position, torch.rand_like(f.position)))


def longer(f: Features) -> Features:
    """Return Features with seven more tokens of padding."""
    g = random_features(f.mask.shape[0], 7, f.tokens.shape[2])
    return Features(
        torch.cat([f.tokens, g.tokens], dim=1),
        torch.cat([f.mask, g.mask & False], dim=1),
        f.pooled,
        torch.cat([f.position, g.position], dim=1),
    )


def check_fusion(fusion: Any, inputs: Sequence[str], embed_dim: int) -> list[Result]:
    """Run all checks of a fusion on a batch with one row per subset of present inputs.

    Args:
        fusion: The fusion.
        inputs: Names of its inputs.
        embed_dim: Width D of its Features.
    """
    torch.manual_seed(0)
    give_attributes(fusion)
    fusion.eval()
    subsets = torch.tensor(list(product([True, False], repeat=len(inputs))))  # (2^n, n); the last row has no input
    rows = len(subsets)

    def draw() -> dict[str, Features]:
        return {n: random_features(rows, 3 + i, embed_dim, subsets[:, i]) for i, n in enumerate(inputs)}

    features = draw()
    anchor: Any = getattr(fusion, "anchor", None)  # only fusions that keep the tokens of one input have it

    def influence() -> None:
        before = fusion(features)
        same_features(fusion({n: other_filler(f) for n, f in features.items()}), before, "with other filler")
        half = {n: Features(*(t[::2] for t in f)) for n, f in features.items()}
        same_features(fusion(half), Features(*(t[::2] for t in before)), "without the other rows")
        for i, name in enumerate(inputs):
            changed = fusion({**features, name: draw()[name]})
            moved = (changed.pooled - before.pooled).abs().amax(1) > 1e-6
            demand(moved[subsets[:, i]].all(), f"input '{name}' has no influence on pooled where it is present")
            demand(not moved[~subsets[:, i]].any(), f"input '{name}' has influence where it is absent")

    def anchored() -> None:
        fused = fusion(features)
        demand(anchor in inputs, f"anchor: got {anchor!r}, wanted one of {', '.join(inputs)}")
        demand(torch.equal(fused.mask, features[anchor].mask), "mask: not the anchor's")
        demand(torch.equal(fused.position, features[anchor].position), "position: not the anchor's")

    checks: dict[str, Callable[[], None]] = {
        "shapes": lambda: shapes(fusion(features), rows, embed_dim),
        "padding": lambda: same_features(
            fusion({n: longer(f) for n, f in features.items()}), fusion(features), "padded"
        ),
        "absence": lambda: absence(fusion(features), subsets.any(1)),
        "influence": influence,
        "export": lambda: exports(fusion, (features,), (draw(),)),
        "compile": lambda: compiles(fusion, (features,)),
    }
    if anchor is not None:
        checks["anchor"] = anchored
    with torch.no_grad():
        results = run(checks)
    return results + run({"gradients": lambda: gradients(fusion, lambda m: weighted(m(draw())))})
