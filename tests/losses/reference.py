"""Batches of unit vectors, and the losses one term after the other, as the papers write them."""

import itertools
import math

import torch
import torch.nn.functional as F

from mm.types import IGNORE, Embedded


def draw(rows: int = 7, inputs: int = 2, width: int = 5, seed: int = 0, absent: float = 0.0) -> Embedded:
    """float64; absent: probability that a row lacks an input, whose filler then is large."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(rows, inputs, width, generator=generator, dtype=torch.float64)
    present = torch.rand(rows, inputs, generator=generator) >= absent
    vectors = torch.where(present[:, :, None], F.normalize(vectors, dim=-1), 100.0)
    return Embedded(
        vectors.requires_grad_(), present, torch.arange(rows), torch.full((rows,), IGNORE), torch.zeros(rows)
    )


def parts(whole: Embedded, *cuts: int) -> list[tuple[Embedded, int]]:
    """Rows as several processes hold them, and where they begin."""
    edges = [0, *cuts, len(whole.row)]
    return [(Embedded(*(x[a:b] for x in whole)), a) for a, b in itertools.pairwise(edges)]


def symile_by_loop(batch: Embedded, scale: float, combinations: list[list[list[int]]], keep=lambda i, rows: True):
    """combinations: of each anchor row, the rows that the other inputs of its negatives are taken from."""
    rows, inputs, width = batch.vectors.shape
    full = [i for i in range(rows) if batch.present[i].all()]
    total = 0.0
    for anchor in range(inputs):
        others = [k for k in range(inputs) if k != anchor]

        def score(i: int, chosen: list[int], anchor: int = anchor, others: list[int] = others) -> float:
            product = batch.vectors[i, anchor].clone()
            for row, k in zip(chosen, others):
                product = product * batch.vectors[row, k]
            return scale * width ** ((inputs - 2) / 2) * product.sum().item()

        for i in full:
            positive = math.exp(score(i, [i] * (inputs - 1)))
            negatives = [math.exp(score(i, c)) for c in combinations[i] if c != [i] * (inputs - 1) and keep(i, c)]
            total -= math.log(positive / (positive + sum(negatives))) / inputs
    return total, len(full)
