"""MLP over the cells of a table."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.encoders.tabular._cells import Cells
from mm.layers import Pool, time_position
from mm.types import Features, InputSpec


class TabularMLP(Configurable, nn.Module):
    """Embed the cells of a table and apply residual MLPs to each cell.

    Args:
        embed_dim: Width D of the tokens.
        cardinalities: Number of classes of each column; 0: a column of numbers.
        num_layers: Number of residual MLPs; 0: the tokens are the embedded cells.
        dropout: Dropout probability.
        pool: Pooling of the tokens: `concat`, an MLP on the concatenated means of the columns, or `mean`, `first`,
            `last`, `max` or `attention`.
    """

    def __init__(
        self,
        embed_dim: int = 64,
        *,
        cardinalities: Sequence[int],
        num_layers: int = 1,
        dropout: float = 0.1,
        pool: str = "concat",
    ):
        super().__init__()
        self.embed_dim = embed_dim
        self.input = InputSpec(modality="tabular", cardinalities=tuple(cardinalities))
        self.cells = Cells(cardinalities, embed_dim)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList([mlp(embed_dim, embed_dim, dropout) for _ in range(num_layers)])
        self.pool = Concat(len(cardinalities), embed_dim, dropout) if pool == "concat" else Pool(pool, embed_dim)

    def layer_order(self) -> list[list[str]]:
        """Return the prefixes of the parameter names of each layer, from input to output."""
        order = [["cells"], *([f"blocks.{i}"] for i in range(len(self.blocks)))]
        return [*order[:-1], [*order[-1], "pool"]]

    def forward(self, x: Tensor, mask: Tensor) -> Features:
        """Encode a batch of table rows.

        Args:
            x: Column, class and number of each cell, (B, T, 3), as in `mm.transforms.tabular.row`.
            mask: Mask of the cells, (B, T).

        Returns:
            Features with one token per cell, (B, T, D).
        """
        tokens = self.drop(self.cells(x))
        for block in self.blocks:
            tokens = tokens + block(tokens)
        column = (x[..., 0].long(),) if isinstance(self.pool, Concat) else ()
        return Features(tokens, mask, self.pool(tokens, mask, *column), time_position(mask))


class Concat(nn.Module):
    """Concatenate the mean token of each column, with zeros for columns without a token, and apply an MLP."""

    def __init__(self, columns: int, dim: int, dropout: float):
        super().__init__()
        self.columns = columns
        self.mlp = mlp(columns * dim, dim, dropout)

    def forward(self, tokens: Tensor, mask: Tensor, column: Tensor) -> Tensor:
        """Return the pooled vectors (B, D), with zeros for rows without a token.

        Args:
            tokens: Tokens, (B, T, D).
            mask: Mask of the tokens, (B, T).
            column: Index of the column of each token, (B, T).
        """
        member = F.one_hot(column, self.columns).to(tokens.dtype) * mask.unsqueeze(-1)  # (B, T, C)
        means = torch.einsum("btc,btd->bcd", member, tokens) / member.sum(1).clamp(min=1).unsqueeze(-1)
        return self.mlp(means.flatten(1)) * mask.any(1, keepdim=True)


def mlp(into: int, dim: int, dropout: float) -> nn.Sequential:
    """Return an MLP with one hidden layer of the output width `dim`."""
    return nn.Sequential(nn.Linear(into, dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(dim, dim))
