"""Conformer over log-mel spectrograms."""

import torch
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.encoders.audio.conv import MaskedConv
from mm.encoders.audio.log_mel import LogMel
from mm.layers import Attention, Pool, sinusoid, time_position
from mm.types import Features, InputSpec


class Convolution(nn.Module):
    """Convolution module of the conformer: gated pointwise, depthwise over time, and pointwise convolution.

    It has layer norm in place of batch norm, because batch statistics would include padding.
    """

    def __init__(self, dim: int, kernel: int, dropout: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.gate = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GLU())
        self.depthwise = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.norm2 = nn.LayerNorm(dim)
        self.out = nn.Sequential(nn.SiLU(), nn.Linear(dim, dim), nn.Dropout(dropout))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the convolved tokens, (B, T, D).

        Args:
            x: Tokens, (B, T, D).
            mask: Mask of the tokens, (B, T).
        """
        # Without the mask, padding would change the result (in torchaudio by 0.13 to 0.77).
        y = self.gate(self.norm1(x)) * mask.unsqueeze(-1)
        return self.out(self.norm2(self.depthwise(y.transpose(1, 2)).transpose(1, 2)))


class ConformerBlock(nn.Module):
    """Conformer block: half an MLP, attention, convolution and half an MLP (Gulati et al. 2020).

    Each of the four has a residual connection. The results of the MLPs are halved.
    """

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
        """Return the updated tokens, (B, T, D).

        Args:
            x: Tokens, (B, T, D).
            mask: Mask of the tokens, (B, T).
        """
        x = x + 0.5 * self.mlp1(x)
        y = self.norm(x)
        x = x + self.drop(self.attention(y, y, mask))
        x = x + self.convolution(x, mask)
        return self.out(x + 0.5 * self.mlp2(x))


class AudioConformer(Configurable, nn.Module):
    """Conformer over log-mel spectrograms, trained from scratch (Gulati et al. 2020).

    Two strided convolutions reduce the number of frames to a quarter. Conformer blocks with sinusoidal positions
    follow.

    Args:
        frontend: Computes the spectrogram of a waveform.
        embed_dim: Width D of the tokens.
        num_layers: Number of conformer blocks.
        num_heads: Number of attention heads; it must divide `embed_dim`.
        kernel: Kernel size of the depthwise convolution, in steps of four frames; it must be odd.
        stem: Number of channels of the two strided convolutions.
        dropout: Dropout probability.
        pool: Pooling of the tokens: `mean`, `first`, `last`, `max` or `attention`.

    Raises:
        ValueError: If the kernel is even, or if `num_heads` does not divide `embed_dim`.
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
        """Return the prefixes of the parameter names of each layer, from input to output."""
        order = [["stem", "project"], *([f"blocks.{i}"] for i in range(len(self.blocks)))]
        return [*order[:-1], [*order[-1], "pool"]]

    def forward(self, x: Tensor, mask: Tensor) -> Features:
        """Encode a batch of waveforms.

        Args:
            x: Samples, (B, L).
            mask: Mask of the samples, (B, L).

        Returns:
            Features with one token per four frames, (B, T, D).
        """
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
