"""Transformer over the cells of a table."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.encoders.tabular._cells import Cells
from mm.layers import Pool, TransformerBlock, sinusoid, time_position
from mm.types import Features, InputSpec


def places_behind(column: Tensor, mask: Tensor) -> Tensor:
    """Return the number of cells of the same column that follow each cell, (B, T).

    Args:
        column: Index of the column of each cell, (B, T); the cells of a column are adjacent.
        mask: Mask of the cells, (B, T).
    """
    count = mask.shape[1]
    column = torch.where(mask, column, -1).flip(1)
    new = torch.cat([torch.ones_like(mask[:, :1]), column[:, 1:] != column[:, :-1]], dim=1)
    order = torch.arange(count, device=mask.device)
    return (order - torch.where(new, order, 0).cummax(1).values).flip(1)


class TabularTransformer(Configurable, nn.Module):
    """Transformer over the cells of a table (FT-Transformer, Gorishniy et al. 2021).

    Args:
        embed_dim: Width D of the tokens.
        cardinalities: Number of classes of each column; 0: a column of numbers.
        num_layers: Number of transformer layers.
        num_heads: Number of attention heads; it must divide `embed_dim`.
        dropout: Dropout probability.
        positions: Whether to embed the distance of each element of a list from the end of the list, as for a history.
        pool: Pooling of the tokens: `token`, the output of a trained class token, or `mean`, `first`, `last`, `max` or
            `attention`.

    Raises:
        ValueError: If `num_heads` does not divide `embed_dim`.
    """

    def __init__(
        self,
        embed_dim: int = 64,
        *,
        cardinalities: Sequence[int],
        num_layers: int = 2,
        num_heads: int = 4,
        dropout: float = 0.1,
        positions: bool = True,
        pool: str = "token",
    ):
        super().__init__()
        self.embed_dim = embed_dim
        self.input = InputSpec(modality="tabular", cardinalities=tuple(cardinalities))
        self.positions = positions
        self.cells = Cells(cardinalities, embed_dim)
        self.drop = nn.Dropout(dropout)
        self.token = nn.Parameter(torch.randn(1, 1, embed_dim) * 0.02) if pool == "token" else None
        self.blocks = nn.ModuleList([TransformerBlock(embed_dim, num_heads, dropout) for _ in range(num_layers)])
        self.norm = nn.LayerNorm(embed_dim)
        self.pool = None if pool == "token" else Pool(pool, embed_dim)

    def layer_order(self) -> list[list[str]]:
        """Return the prefixes of the parameter names of each layer, from input to output."""
        order = [["cells", "token"], *([f"blocks.{i}"] for i in range(len(self.blocks)))]
        return [*order[:-1], [*order[-1], "norm", "pool"]]

    def forward(self, x: Tensor, mask: Tensor) -> Features:
        """Encode a batch of table rows.

        Args:
            x: Column, class and number of each cell, (B, T, 3), as in `mm.transforms.tabular.row`.
            mask: Mask of the cells, (B, T).

        Returns:
            Features with one token per cell, (B, T, D).
        """
        tokens = self.cells(x)
        if self.positions:
            behind = places_behind(x[..., 0].long(), mask)
            # Scaled to the initial length of a cell's vector, which longer sinusoids would dominate.
            tokens = tokens + (sinusoid(behind, self.embed_dim) * self.embed_dim**-0.5).to(tokens.dtype)
        tokens, attended = self.drop(tokens), mask
        if self.token is not None:
            tokens = torch.cat([self.token.expand(len(x), -1, -1).to(tokens.dtype), tokens], dim=1)
            attended = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)
        for block in self.blocks:
            tokens = block(tokens, attended)
        tokens = self.norm(tokens)
        if self.pool is not None:
            return Features(tokens, mask, self.pool(tokens, mask), time_position(mask))
        return Features(tokens[:, 1:], mask, tokens[:, 0] * mask.any(1, keepdim=True), time_position(mask))
