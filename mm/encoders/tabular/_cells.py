"""Embedding of the cells of a table, the first layer of the tabular encoders."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Cells(nn.Module):
    """Embed the cells of a table (Gorishniy et al. 2021).

    The vector of a cell is the sum of a vector of its column and either the vector of its class, or its number
    multiplied with a vector of the column. The vector of class 0, which stands for all classes that do not occur in the
    training rows, is initialised with zeros.

    Args:
        cardinalities: Number of classes of each column; 0: a column of numbers.
        embed_dim: Width D of the tokens.
    """

    numbers: Tensor
    first: Tensor

    def __init__(self, cardinalities: Sequence[int], embed_dim: int):
        super().__init__()
        if not cardinalities:
            raise ValueError("cardinalities: got none, wanted one for each column")
        first = torch.tensor([0, *cardinalities]).cumsum(0)  # index of each column's first class
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
        """Return the vectors (B, T, D) of T cells.

        Args:
            x: Column, class and number of each cell, (B, T, 3), as in `mm.transforms.tabular.row`.
        """
        column, place = x[..., 0].long(), x[..., 1].long()
        which = self.numbers[column]  # (B, T), -1 for cells that are not numbers
        is_number = (which >= 0).unsqueeze(-1)
        tokens = self.column(column)
        if self.number is not None:
            tokens = tokens + self.number(which.clamp(min=0)) * torch.where(is_number, x[..., 2:], 0.0)
        if self.category is not None:
            index = torch.where(which < 0, self.first[column] + place, 0)
            tokens = tokens + torch.where(is_number, 0.0, self.category(index))
        return tokens


def table(count: int, dim: int) -> nn.Embedding:
    """Return an embedding whose vectors have an initial length of about 1/sqrt(3), as in the paper."""
    found = nn.Embedding(count, dim)
    nn.init.uniform_(found.weight, -(dim**-0.5), dim**-0.5)
    return found
