"""Classes told by prompts: which class's texts lie closest (CLIP, Radford 2021)."""

import torch
import torch.nn.functional as F
from torch import Tensor

COMBINE = ("mean", "product", "mip")


def class_vectors(prompts: Tensor) -> Tensor:
    """Mean of the unit vectors of each class's prompts, of unit length. (C, P, D) -> (C, D)"""
    return F.normalize(prompts.mean(1), dim=-1)


def together(vectors: Tensor, present: Tensor) -> Tensor:
    """One unit vector of several inputs: the mean of those that a row has. (R, N, D), (R, N) -> (R, D)"""
    return F.normalize((vectors * present.unsqueeze(-1)).sum(1), dim=-1)


def zero_shot(vectors: Tensor, present: Tensor, classes: Tensor, combine: str, scale: float) -> Tensor:
    """Scores of the classes, from those of N inputs that a row has.

    mean: cosine of the mean of its vectors; product: of experts, the sum of each input's log-probabilities, where
    similarities are multiplied by `scale`; mip: multilinear inner product, the sum of the elementwise product of all
    vectors and the class's, which is what Symile makes large (Saporta 2024) and says nothing of an input alone.
    vectors (R, N, D) of unit length, present (R, N), classes (C, D) -> (R, C)
    """
    if combine == "mean":
        return together(vectors, present) @ classes.T
    if combine == "mip":
        return torch.where(present.unsqueeze(-1), vectors, 1.0).prod(1) @ classes.T
    return (torch.log_softmax(scale * vectors @ classes.T, -1) * present.unsqueeze(-1)).sum(1)
