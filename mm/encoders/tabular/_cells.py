"""Cells of a table -> vectors: what both encoders begin with."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Cells(nn.Module):
    """Embed cells: a vector of the column plus that of the class, or the number times a vector (Gorishniy et al. 2021).

    The vector of class 0, which stands for classes that no training row has, starts at zero.

    Args:
        cardinalities: Number of classes of each column; 0: the column holds numbers.
        embed_dim: Width D of the tokens.
    """

    numbers: Tensor
    first: Tensor

    def __init__(self, cardinalities: Sequence[int], embed_dim: int):
        super().__init__()
        if not cardinalities:
            raise ValueError("cardinalities: got none, wanted one for each column")
        first = torch.tensor([0, *cardinalities]).cumsum(0)  # of each column its first class in a table of all
        self.register_buffer("first", first[:-1], persistent=False)
        is_number = torch.tensor([size == 0 for size in cardinalities])
        self.register_buffer("numbers", torch.where(is_number, is_number.cumsum(0) - 1, -1), persistent=False)
        self.column = table(len(cardinalities), embed_dim)
        self.number = table(int(is_number.sum()), embed_dim) if is_number.any() else None
        self.category = table(int(first[-1]), embed_dim) if first[-1] else None
        if self.category is not None:
            with torch.no_grad():
                self.category.weight[self.first[~is_number]] = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 3) as mm.transforms.tabular.row has it -> (B, T, D)"""
        column, place = x[..., 0].long(), x[..., 1].long()
        which = self.numbers[column]  # (B, T), -1 where it is no number
        is_number = (which >= 0).unsqueeze(-1)
        tokens = self.column(column)
        if self.number is not None:
            tokens = tokens + self.number(which.clamp(min=0)) * torch.where(is_number, x[..., 2:], 0.0)
        if self.category is not None:
            index = torch.where(which < 0, self.first[column] + place, 0)
            tokens = tokens + torch.where(is_number, 0.0, self.category(index))
        return tokens


def table(count: int, dim: int) -> nn.Embedding:
    """Vectors of about length 1/sqrt(3), as the paper has them."""
    found = nn.Embedding(count, dim)
    nn.init.uniform_(found.weight, -(dim**-0.5), dim**-0.5)
    return found
