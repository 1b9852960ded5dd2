"""Small convolutional network over log-mel spectrograms."""

from collections.abc import Sequence

from torch import Tensor, nn

from mm.configurable import Configurable
from mm.encoders.audio.log_mel import LogMel
from mm.layers import Pool, time_position
from mm.types import Features, InputSpec


class MaskedConv(nn.Module):
    """2-d convolution over mel bands and time, layer norm over the channels of each cell, and ReLU.

    Padding does not influence the cells of a clip, because it is set to zero before the convolution, and because the
    norm uses the channels of a single cell.
    """

    def __init__(self, ins: int, outs: int, stride: tuple[int, int]):
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(ins, outs, 3, stride, padding=1)
        self.norm = nn.LayerNorm(outs)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve a batch of spectrograms.

        Args:
            x: Spectrograms with C channels and F mel bands, (B, C, F, T).
            mask: Mask of the frames, (B, T).

        Returns:
            The feature maps and their mask, with F and T divided by the strides.
        """
        x = self.conv(x * mask[:, None, None, :])
        x = self.norm(x.movedim(1, -1)).movedim(-1, 1).relu()
        return x, mask[:, :: self.stride[1]]


class AudioConv(Configurable, nn.Module):
    """Small convolutional network over log-mel spectrograms.

    Each block halves the number of mel bands. The remaining bands are projected to one token per time step.

    Args:
        frontend: Computes the spectrogram of a waveform.
        embed_dim: Width D of the tokens.
        widths: Number of channels of each block.
        strides: Stride in time of each block.
        pool: Pooling of the tokens: `mean`, `first`, `last`, `max` or `attention`.

    Raises:
        ValueError: If the numbers of widths and strides differ.
    """

    def __init__(
        self,
        frontend: LogMel,
        embed_dim: int = 128,
        widths: Sequence[int] = (32, 64, 96),
        strides: Sequence[int] = (2, 2, 1),
        pool: str = "mean",
    ):
        super().__init__()
        if len(widths) != len(strides):
            raise ValueError(f"strides: got {len(strides)} for {len(widths)} widths; give one stride for each width")
        self.embed_dim = embed_dim
        self.input = InputSpec(modality="audio", sample_rate=frontend.sample_rate)
        self.frontend = frontend
        ins = [1, *widths[:-1]]
        self.blocks = nn.ModuleList([MaskedConv(c, w, (2, s)) for c, w, s in zip(ins, widths, strides)])
        mels = frontend.n_mels
        for _ in widths:
            mels = (mels + 1) // 2
        self.project = nn.Linear(widths[-1] * mels, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)
        self.pool = Pool(pool, embed_dim)

    def layer_order(self) -> list[list[str]]:
        """Return the prefixes of the parameter names of each layer, from input to output."""
        order = [[f"blocks.{i}"] for i in range(len(self.blocks))]
        return [*order[:-1], [*order[-1], "project", "norm", "pool"]]

    def forward(self, x: Tensor, mask: Tensor) -> Features:
        """Encode a batch of waveforms.

        Args:
            x: Samples, (B, L).
            mask: Mask of the samples, (B, L).

        Returns:
            Features with one token per time step of the last block, (B, T, D).
        """
        mel, mask = self.frontend(x, mask)
        grid = mel.unsqueeze(1)
        for block in self.blocks:
            grid, mask = block(grid, mask)
        tokens = self.norm(self.project(grid.permute(0, 3, 1, 2).flatten(2)))  # (B, T, D)
        return Features(tokens, mask, self.pool(tokens, mask), time_position(mask))
