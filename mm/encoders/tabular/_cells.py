"""Cells of a table -> vectors: what both encoders begin with."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Cells(nn.Module):
    """A vector of each column, plus that of the class, or that of the number times it (Gorishniy 2021).

    sizes: how many classes each column has, 0 of a number; class 0 of each starts at zero: it says nothing of what the
    training rows do not have.
    """

    numbers: Tensor
    first: Tensor

    def __init__(self, sizes: Sequence[int], embed_dim: int):
        super().__init__()
        if not sizes:
            raise ValueError("sizes: got none, wanted one for each column")
        first = torch.tensor([0, *sizes]).cumsum(0)  # of each column its first class in a table of all
        self.register_buffer("first", first[:-1], persistent=False)
        is_number = torch.tensor([size == 0 for size in sizes])
        self.register_buffer("numbers", torch.where(is_number, is_number.cumsum(0) - 1, -1), persistent=False)
        self.column = table(len(sizes), embed_dim)
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
