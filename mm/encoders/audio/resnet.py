"""Small residual network over log-mel spectrograms, trained from scratch."""

from collections.abc import Sequence

from torch import Tensor, nn

from mm.absence import encode_present
from mm.configurable import Configurable
from mm.encoders._residual import MeanMaxPool, ResidualNetwork
from mm.encoders.audio.log_mel import LogMel
from mm.encoders.audio.statistics import NUM_STATISTICS, spectrogram_statistics
from mm.layers import time_position
from mm.types import Features, InputSpec

STATISTICS_DROPOUT = 0.3  # of the statistics, which are several hundred numbers for a clip


class AudioResNet(Configurable, nn.Module):
    """Small residual network over log-mel spectrograms, trained from scratch (He et al. 2016).

    The stem reduces bands and frames, and each stage except the first halves both. The mean over the remaining bands
    gives one token per time step. In training, batch norm computes its statistics over the real frames of the rows of
    the batch that have a sound, see mm/absence.py.

    Args:
        frontend: Computes the spectrogram of a waveform.
        widths: Number of channels of each stage.
        depth: Number of residual blocks of each stage.
        stem_stride: Stride of the stem in bands and frames. Strides (4, 4) suit clips of seconds, and (4, 2) clips of
            less than a second, such as spoken digits.
        statistics: Width of a layer on the statistics of each band over time, which is pooled beside the tokens; 0:
            none. Statistics help with environmental sounds and few clips. They do not contain the order of events, and
            harm the recognition of spoken words.
        dropout: Dropout probability of the channels of the last stage, and of the layer on the statistics.

    Raises:
        ValueError: If `stem_stride` does not have two numbers.
    """

    def __init__(
        self,
        frontend: LogMel,
        widths: Sequence[int] = (32, 64, 128),
        depth: int = 1,
        stem_stride: Sequence[int] = (4, 4),
        statistics: int = 0,
        dropout: float = 0.1,
    ):
        super().__init__()
        if len(stem_stride) != 2:
            raise ValueError(f"stem_stride: got {list(stem_stride)}, wanted [bands, frames], such as [4, 4]")
        self.embed_dim = widths[-1]
        self.input = InputSpec(modality="audio", sample_rate=frontend.sample_rate)
        self.frontend = frontend
        self.network = ResidualNetwork(1, tuple(widths), depth, (stem_stride[0], stem_stride[1]))
        self.drop = nn.Dropout2d(dropout)
        summary = None
        if statistics:
            count = NUM_STATISTICS * frontend.n_mels
            layers = nn.Linear(count, statistics), nn.ReLU(), nn.Dropout(dropout)
            summary = nn.Sequential(nn.BatchNorm1d(count), nn.Dropout(STATISTICS_DROPOUT), *layers)
        self.pool = MeanMaxPool(self.embed_dim, summary, statistics)

    def layer_order(self) -> list[list[str]]:
        """Return the prefixes of the parameter names of each layer, from input to output."""
        order = self.network.layer_order("network")
        return [*order[:-1], [*order[-1], "pool"]]

    def forward(self, x: Tensor, mask: Tensor) -> Features:
        """Encode a batch of waveforms.

        Args:
            x: Samples, (B, L).
            mask: Mask of the samples, (B, L).

        Returns:
            Features with one token per time step of the last stage, (B, T, D).
        """
        return encode_present(self, self.encode, x, mask)

    def encode(self, x: Tensor, mask: Tensor) -> Features:
        mel, mask = self.frontend(x, mask)  # (B, F, T), (B, T)
        extra = None if self.pool.further is None else spectrogram_statistics(mel, mask).to(mel.dtype)
        grid, short = self.network(mel.unsqueeze(1), mask)
        assert short is not None
        tokens = self.drop(grid).mean(2).transpose(1, 2)  # (B, T, D)
        tokens = tokens * short.unsqueeze(-1)
        return Features(tokens, short, self.pool(tokens, short, extra), time_position(short))
