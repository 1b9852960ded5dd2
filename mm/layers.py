"""What encoders, fusions and heads share. Shapes as in `mm.types`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.types import Features


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean over real tokens; zeros where there is none. (B, T, D), (B, T) -> (B, D)"""
    weight = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weight).sum(1) / weight.sum(1).clamp(min=1)


def time_position(mask: Tensor) -> Tensor:
    """Centres (0, time) of a sequence's tokens, relative to its own length. (B, T) -> (B, T, 2)"""
    length = mask.sum(1, keepdim=True).clamp(min=1)
    time = ((torch.arange(mask.shape[1], device=mask.device) + 0.5) / length).clamp(max=1)
    return torch.stack([torch.zeros_like(time), time], dim=-1)


def grid_position(height: int, width: int, batch: int, device: torch.device) -> Tensor:
    """Centres (y, x) of a grid's cells, row by row. -> (B, height * width, 2)"""
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)
    return grid.reshape(1, height * width, 2).expand(batch, -1, -1)


def sinusoid(time: Tensor, dim: int) -> Tensor:
    """Sine and cosine of positions at `dim` frequencies (Vaswani 2017). (...,) -> (..., dim)"""
    half = (dim + 1) // 2
    frequency = torch.exp(torch.arange(half, device=time.device) * (-9.21034 / half))  # 9.21034 = log 10,000
    angle = time.unsqueeze(-1).float() * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)[..., :dim]


class Pool(nn.Module):
    """Tokens -> one vector: mean, first, last, max, or attention with a learnt query (Ilse 2018)."""

    def __init__(self, kind: str, dim: int):
        super().__init__()
        if kind not in ("mean", "first", "last", "max", "attention"):
            raise ValueError(f"pool: got '{kind}', wanted one of mean, first, last, max, attention")
        self.kind = kind
        self.query = nn.Linear(dim, 1) if kind == "attention" else None

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D), (B, T) -> (B, D), zeros where no token is real."""
        if self.kind == "mean":
            return masked_mean(tokens, mask)
        if self.query is not None:
            score = self.query(tokens).squeeze(-1).float().masked_fill(~mask, -1e9)
            return masked_mean_by(tokens, score.softmax(-1).to(tokens.dtype), mask)
        if self.kind == "max":
            pooled = tokens.masked_fill(~mask.unsqueeze(-1), torch.finfo(tokens.dtype).min).amax(1)
        else:  # the first or last real token, which need not be at an end of the row
            order = torch.arange(mask.shape[1], device=mask.device)
            index = (mask * (order + 1 if self.kind == "last" else mask.shape[1] - order)).argmax(1)  # (B,)
            pooled = tokens.gather(1, index[:, None, None].expand(-1, 1, tokens.shape[2])).squeeze(1)
        return pooled.masked_fill(~mask.any(1, keepdim=True), 0.0)


def masked_mean_by(tokens: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """Sum of tokens by weights that add up to one; zeros where no token is real. (B, T, D), (B, T), (B, T) -> (B, D)"""
    return (tokens * (weight * mask).unsqueeze(-1)).sum(1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: float) -> Tensor:
    """torch's attention. On a CPU bfloat16 is computed in float32: torch 2.14's kernel is slow for narrow heads.

    Forward and backward of 256 rows, 4 heads of 16, 54 tokens took 137 ms, so 33; heads of 64 take as long either way.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    with torch.autocast("cpu", enabled=False):
        y = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask, dropout_p=dropout)
    return y.to(q.dtype)


class Attention(nn.Module):
    """Multi-head attention of queries over keys, of which only the real ones count (Vaswani 2017).

    causal: each query sees the keys up to its own place.
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
        """(B, T, D), (B, S, D), (B, S) -> (B, T, D); zeros before the output layer where no key is real."""
        q = self.query(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, T, D / heads)
        k, v = self.key_value(context).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        present = mask.any(1)[:, None, None, None]  # (B, 1, 1, 1)
        seen = mask[:, None, None, :]
        if self.causal:
            seen = seen & torch.ones(x.shape[1], context.shape[1], dtype=torch.bool, device=x.device).tril()
        # A row without any key would divide zero by zero: it attends everywhere, and the result is dropped.
        y = attend(q, k, v, seen | ~present, self.dropout if self.training else 0.0)
        return self.out((y * present).transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP; attends to itself, or to `context` where one is given (Xiong 2020)."""

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
        """(B, T, D), mask of what is attended to (B, S), context (B, S, D) -> (B, T, D)"""
        y = self.norm1(x)
        x = x + self.drop(self.attention(y, y if context is None else context, mask))
        return x + self.drop(self.mlp(self.norm2(x)))


def single_token(pooled: Tensor, present: Tensor) -> Features:
    """Features whose one token is the pooled vector itself. (B, D), (B,) bool"""
    pooled = pooled * present.unsqueeze(-1)
    position = torch.full((pooled.shape[0], 1, 2), 0.5, device=pooled.device)
    return Features(pooled.unsqueeze(1), present.unsqueeze(-1), pooled, position)
