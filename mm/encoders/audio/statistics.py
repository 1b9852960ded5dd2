"""Statistics of a spectrogram over time."""

import torch
from torch import Tensor

QUANTILES = (0.1, 0.5, 0.9)
NUM_STATISTICS = 4 + len(QUANTILES)  # per band
STEP = 2  # frames between which differences are computed


def spectrogram_statistics(mel: Tensor, mask: Tensor) -> Tensor:
    """Return the statistics of each mel band over the real frames, (B, 7 * F), with zeros for rows without a frame.

    These are the mean, the standard deviation, the root mean square of the differences between frames, the quantiles
    0.1, 0.5 and 0.9, and the maximum.

    Args:
        mel: Spectrograms with F bands, (B, F, T).
        mask: Mask of the frames, (B, T); the real frames of a row come first.
    """
    real = mask.unsqueeze(1)  # (B, 1, T)
    count = mask.sum(1)[:, None, None]  # (B, 1, 1)
    number = count.clamp(min=1)
    mel = mel.float() * real
    mean = mel.sum(2, keepdim=True) / number
    deviation = (((mel - mean) * real).square().sum(2, keepdim=True) / number + 1e-8).sqrt()
    both = real[..., STEP:]
    change = (mel[..., STEP:] - mel[..., :-STEP]) * both
    change = (change.square().sum(2, keepdim=True) / both.sum(2, keepdim=True).clamp(min=1) + 1e-8).sqrt()
    ranked = mel.masked_fill(~real, torch.inf).sort(dim=2).values
    ranks = [((number - 1) * q).round().long() for q in (*QUANTILES, 1.0)]
    ordered = [ranked.gather(2, rank.expand(-1, mel.shape[1], -1)) for rank in ranks]
    statistics = torch.cat([mean, deviation, change, *ordered], dim=2)  # (B, F, 7)
    return torch.where(count > 0, statistics, 0.0).flatten(1)
