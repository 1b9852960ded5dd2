"""Zero-shot classification: the class whose prompts are nearest to a row (CLIP, Radford et al. 2021)."""

import torch
import torch.nn.functional as F
from torch import Tensor

COMBINE = ("mean", "product", "mip")


def class_vectors(prompts: Tensor) -> Tensor:
    """Return the normalised mean vector of the prompts of each class, (C, D).

    Args:
        prompts: Unit vectors of P prompts per class, (C, P, D).
    """
    return F.normalize(prompts.mean(1), dim=-1)


def combine_inputs(vectors: Tensor, present: Tensor) -> Tensor:
    """Return the normalised mean of the vectors of the present inputs, (R, D).

    Args:
        vectors: Unit vectors of N inputs, (R, N, D).
        present: Whether each row has each input, (R, N).
    """
    return F.normalize((vectors * present.unsqueeze(-1)).sum(1), dim=-1)


def class_scores(vectors: Tensor, present: Tensor, classes: Tensor, combine: str, scale: float) -> Tensor:
    """Return the scores of the classes for each row, (R, C), from the inputs that the row has.

    Args:
        vectors: Unit vectors of N inputs, (R, N, D).
        present: Whether each row has each input, (R, N).
        classes: Unit vectors of the classes, (C, D).
        combine: Combination of the inputs. `mean`: cosine similarity with the mean vector. `product`: product of
            experts, the sum of the log-probabilities from each input. `mip`: multilinear inner product, the sum of the
            elementwise product of all vectors and the vector of the class, which Symile maximises (Saporta et al.
            2024); it is not meaningful for a single input.
        scale: Factor of the similarities, for `product`.
    """
    if combine == "mean":
        return combine_inputs(vectors, present) @ classes.T
    if combine == "mip":
        return torch.where(present.unsqueeze(-1), vectors, 1.0).prod(1) @ classes.T
    return (torch.log_softmax(scale * vectors @ classes.T, -1) * present.unsqueeze(-1)).sum(1)
