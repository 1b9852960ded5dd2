"""Layers and functions that encoders, fusions and heads share.

Shapes as in `mm.types`: B rows of a batch, T and S tokens, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.types import Features


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the real tokens, (B, D), with zeros for rows without a token.

    Args:
        tokens: Tokens, (B, T, D).
        mask: Mask of the tokens, (B, T).
    """
    weight = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weight).sum(1) / weight.sum(1).clamp(min=1)


def time_position(mask: Tensor) -> Tensor:
    """Return the centre (0, time) of each token of a sequence, relative to the length of the row, (B, T, 2).

    Args:
        mask: Mask of the tokens, (B, T).
    """
    length = mask.sum(1, keepdim=True).clamp(min=1)
    time = ((torch.arange(mask.shape[1], device=mask.device) + 0.5) / length).clamp(max=1)
    return torch.stack([torch.zeros_like(time), time], dim=-1)


def grid_position(height: int, width: int, batch: int, device: torch.device) -> Tensor:
    """Return the centre (y, x) of each cell of a grid, row by row, relative to its size, (batch, height * width, 2)."""
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)
    return grid.reshape(1, height * width, 2).expand(batch, -1, -1)


def sinusoid(time: Tensor, dim: int) -> Tensor:
    """Return the sine and cosine of positions (...,) at `dim` frequencies, (..., dim) (Vaswani et al. 2017)."""
    half = (dim + 1) // 2
    frequency = torch.exp(torch.arange(half, device=time.device) * (-9.21034 / half))  # 9.21034 = log 10,000
    angle = time.unsqueeze(-1).float() * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)[..., :dim]


class Pool(nn.Module):
    """Pool tokens to one vector: mean, first, last, max, or attention with a trained query (Ilse et al. 2018).

    Args:
        kind: `mean`, `first`, `last`, `max` or `attention`.
        dim: Width D of the tokens.

    Raises:
        ValueError: If the kind is unknown.
    """

    def __init__(self, kind: str, dim: int):
        super().__init__()
        if kind not in ("mean", "first", "last", "max", "attention"):
            raise ValueError(f"pool: got '{kind}', wanted one of mean, first, last, max, attention")
        self.kind = kind
        self.query = nn.Linear(dim, 1) if kind == "attention" else None

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the pooled vectors (B, D), with zeros for rows without a token.

        Args:
            tokens: Tokens, (B, T, D).
            mask: Mask of the tokens, (B, T).
        """
        if self.kind == "mean":
            return masked_mean(tokens, mask)
        if self.query is not None:
            score = self.query(tokens).squeeze(-1).float().masked_fill(~mask, -1e9)
            return masked_mean_by(tokens, score.softmax(-1).to(tokens.dtype), mask)
        if self.kind == "max":
            pooled = tokens.masked_fill(~mask.unsqueeze(-1), torch.finfo(tokens.dtype).min).amax(1)
        else:  # the first or last real token, which can be anywhere in the row
            order = torch.arange(mask.shape[1], device=mask.device)
            index = (mask * (order + 1 if self.kind == "last" else mask.shape[1] - order)).argmax(1)  # (B,)
            pooled = tokens.gather(1, index[:, None, None].expand(-1, 1, tokens.shape[2])).squeeze(1)
        return pooled.masked_fill(~mask.any(1, keepdim=True), 0.0)


def masked_mean_by(tokens: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the real tokens by given weights, (B, D), with zeros for rows without a token.

    Args:
        tokens: Tokens, (B, T, D).
        weight: Weights that add up to one, (B, T).
        mask: Mask of the tokens, (B, T).
    """
    return (tokens * (weight * mask).unsqueeze(-1)).sum(1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: float) -> Tensor:
    """Compute scaled dot-product attention with torch, on a CPU in float32 if the inputs are bfloat16.

    The bfloat16 kernel of torch 2.14 is slow on CPUs for narrow heads. With 256 rows, 4 heads of width 16 and 54
    tokens, a forward and backward pass takes 137 ms in bfloat16 and 33 ms in float32. With heads of width 64, both take
    the same time.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    with torch.autocast("cpu", enabled=False):
        y = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask, dropout_p=dropout)
    return y.to(q.dtype)


class Attention(nn.Module):
    """Multi-head attention in which queries attend to the real keys only (Vaswani et al. 2017).

    Args:
        dim: Width D.
        num_heads: Number of attention heads; it must divide `dim`.
        dropout: Dropout probability of the attention weights.
        causal: Whether each query attends only to keys up to its own index.

    Raises:
        ValueError: If `num_heads` does not divide `dim`.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0, causal: bool = False):
        super().__init__()
        if dim % num_heads:
            raise ValueError(
                f"num_heads: got {num_heads}, which does not divide the width {dim}; choose a divisor of {dim}"
            )
        self.num_heads = num_heads
        self.dropout = dropout
        self.causal = causal
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Return the attention output, (B, T, D).

        For rows without a real key, the input of the output layer is zero.

        Args:
            x: Queries, (B, T, D).
            context: Keys and values, (B, S, D).
            mask: Mask of the keys, (B, S).
        """
        q = self.query(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, T, D / heads)
        k, v = self.key_value(context).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        present = mask.any(1)[:, None, None, None]  # (B, 1, 1, 1)
        seen = mask[:, None, None, :]
        if self.causal:
            seen = seen & torch.ones(x.shape[1], context.shape[1], dtype=torch.bool, device=x.device).tril()
        # Without any key the softmax would be NaN, so such a row attends to all keys, and its result is set to 0.
        y = attend(q, k, v, seen | ~present, self.dropout if self.training else 0.0)
        return self.out((y * present).transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Pre-norm transformer block, with self-attention or attention to a context, and an MLP (Xiong et al. 2020).

    Args:
        dim: Width D.
        num_heads: Number of attention heads; it must divide `dim`.
        dropout: Dropout probability.
        expansion: Width of the hidden layer of the MLP, as a multiple of `dim`.
        causal: Whether each token attends only to tokens up to its own index.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0, expansion: int = 4, causal: bool = False):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, num_heads, dropout, causal)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, expansion * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(expansion * dim, dim)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the updated tokens, (B, T, D).

        Args:
            x: Tokens, (B, T, D).
            mask: Mask of the attended tokens: of the context (B, S), or of x (B, T) without a context.
            context: Tokens to attend to, (B, S, D); None: x.
        """
        y = self.norm1(x)
        x = x + self.drop(self.attention(y, y if context is None else context, mask))
        return x + self.drop(self.mlp(self.norm2(x)))


def single_token(pooled: Tensor, present: Tensor) -> Features:
    """Return Features with a single token, which is the pooled vector.

    Args:
        pooled: Pooled vectors, (B, D).
        present: Whether each row is present, (B,) bool.
    """
    pooled = pooled * present.unsqueeze(-1)
    position = torch.full((pooled.shape[0], 1, 2), 0.5, device=pooled.device)
    return Features(pooled.unsqueeze(1), present.unsqueeze(-1), pooled, position)
