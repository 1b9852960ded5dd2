"""A conformer over log-mel spectrograms."""

import torch
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.encoders.audio.conv import MaskedConv
from mm.encoders.audio.log_mel import LogMel
from mm.layers import Attention, Pool, sinusoid, time_position
from mm.types import Features, InputSpec


class Convolution(nn.Module):
    """Gated pointwise, depthwise over time, pointwise; layer norm in place of batch norm, which padding would enter."""

    def __init__(self, dim: int, kernel: int, dropout: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.gate = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GLU())
        self.depthwise = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.norm2 = nn.LayerNorm(dim)
        self.out = nn.Sequential(nn.SiLU(), nn.Linear(dim, dim), nn.Dropout(dropout))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D), (B, T) -> (B, T, D)"""
        y = self.gate(self.norm1(x)) * mask.unsqueeze(-1)  # torchaudio's leaks padding by 0.13 to 0.77 for want of this
        return self.out(self.norm2(self.depthwise(y.transpose(1, 2)).transpose(1, 2)))


class ConformerBlock(nn.Module):
    """Half an MLP, attention, convolution, the other half, each with a shortcut (Gulati 2020)."""

    def __init__(self, dim: int, num_heads: int, kernel: int, dropout: float):
        super().__init__()
        self.mlp1 = self.mlp(dim, dropout)
        self.norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, num_heads, dropout)
        self.drop = nn.Dropout(dropout)
        self.convolution = Convolution(dim, kernel, dropout)
        self.mlp2 = self.mlp(dim, dropout)
        self.out = nn.LayerNorm(dim)

    @staticmethod
    def mlp(dim: int, dropout: float) -> nn.Sequential:
        return nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.SiLU(), nn.Dropout(dropout), nn.Linear(4 * dim, dim)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D), (B, T) -> (B, T, D)"""
        x = x + 0.5 * self.mlp1(x)
        y = self.norm(x)
        x = x + self.drop(self.attention(y, y, mask))
        x = x + self.convolution(x, mask)
        return self.out(x + 0.5 * self.mlp2(x))


class AudioConformer(Configurable, nn.Module):
    """Conformer over log-mel spectrograms, from scratch (Gulati et al. 2020).

    Two strided convolutions reduce the frames to a quarter; conformer blocks with sinusoidal positions follow.

    Args:
        frontend: Computes the spectrogram of a waveform.
        embed_dim: Width D of the tokens.
        num_layers: Number of conformer blocks.
        num_heads: Number of attention heads; it divides `embed_dim`.
        kernel: Size of the kernel of the depthwise convolution, in steps of four frames; odd.
        stem: Channels of the two strided convolutions.
        dropout: Dropout probability.
        pool: Pooling of the tokens: `mean`, `first`, `last`, `max` or `attention`.

    Raises:
        ValueError: If the kernel is even, or `num_heads` does not divide `embed_dim`.
    """

    def __init__(
        self,
        frontend: LogMel,
        embed_dim: int = 96,
        num_layers: int = 2,
        num_heads: int = 4,
        kernel: int = 9,
        stem: int = 32,
        dropout: float = 0.1,
        pool: str = "mean",
    ):
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel: got {kernel}, wanted an odd number such as {kernel + 1}")
        self.embed_dim = embed_dim
        self.input = InputSpec(modality="audio", sample_rate=frontend.sample_rate)
        self.frontend = frontend
        self.stem = nn.ModuleList([MaskedConv(1, stem, (2, 2)), MaskedConv(stem, stem, (2, 2))])
        self.project = nn.Linear(stem * ((frontend.n_mels + 3) // 4), embed_dim)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList([ConformerBlock(embed_dim, num_heads, kernel, dropout) for _ in range(num_layers)])
        self.pool = Pool(pool, embed_dim)

    def layer_order(self) -> list[list[str]]:
        """Return prefixes of the parameters' names, layer by layer from input to output."""
        order = [["stem", "project"], *([f"blocks.{i}"] for i in range(len(self.blocks)))]
        return [*order[:-1], [*order[-1], "pool"]]

    def forward(self, x: Tensor, mask: Tensor) -> Features:
        """Waveform (B, L), (B, L)"""
        mel, mask = self.frontend(x, mask)
        grid = mel.unsqueeze(1)
        for conv in self.stem:
            grid, mask = conv(grid, mask)
        tokens = self.project(grid.permute(0, 3, 1, 2).flatten(2))  # (B, T, D)
        time = torch.arange(tokens.shape[1], device=x.device)
        tokens = self.drop(tokens + sinusoid(time, self.embed_dim).to(tokens.dtype))
        for block in self.blocks:
            tokens = block(tokens, mask)
        return Features(tokens, mask, self.pool(tokens, mask), time_position(mask))
