"""Masked spectrogram modelling: silence spans of a sound and predict their spectrogram from the rest.

Shapes: B batch, L samples, N spans of a clip, F mel bands, T frames of the spectrogram.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from mm.model import MultimodalModel
from mm.tasks.objectives._blocks import BlockDecoder, draw
from mm.tasks.pretraining import Objective, raw, select_inputs
from mm.types import Batch, Features

WINDOW, HOP, MELS = 0.025, 0.01, 40  # window and hop in seconds, and number of mel bands, of the predicted spectrogram
FLOOR = 1e-6  # below the energy of 16-bit silence


class MaskedAudioObjective(Objective):
    """Silence spans of audio clips and reconstruct their log-mel spectrogram with any audio encoder (SimMIM, Xie 2022).

    The loss is the mean absolute error over the masked spans of the log-mel spectrogram, which is normalised to mean 0
    and standard deviation 1 per clip.

    Args:
        model: The model.
        span_seconds: Length of a span in seconds, a multiple of 0.01, the hop of the spectrogram.
        ratio: Fraction of the complete spans of a clip to mask, between 0 and 1. Clips with a single span are left out
            of the loss.
        inputs: Names of the audio inputs; None: all of them.
        weight: Weight of this loss in the sum of all objectives.

    Raises:
        ValueError: If the model has no audio input, or if an argument is out of range.
    """

    def __init__(
        self,
        model: MultimodalModel,
        span_seconds: float = 0.1,
        ratio: float = 0.5,
        inputs: Sequence[str] | None = None,
        weight: float = 1.0,
    ):
        super().__init__()
        self.frames = round(span_seconds / HOP)  # frames of the spectrogram per span
        if self.frames < 1 or abs(span_seconds - self.frames * HOP) > 1e-6 or not 0 < ratio < 1:
            raise ValueError(
                f"task.objectives: got span_seconds={span_seconds}, ratio={ratio}, wanted a multiple of {HOP} seconds "
                "and a ratio in 0..1"
            )
        self.inputs = select_inputs(model, "audio", inputs, "masked_audio")
        self.ratio = ratio
        self.losses = dict.fromkeys(self.inputs, weight)
        self.warned = False
        decoders: dict[str, nn.Module] = {}
        self.spectrograms: dict[str, MelSpectrogram] = {}  # not submodules, so that they stay float32 with bf16-true
        for name in self.inputs:
            part = model.shared_encoders.get(name, name)
            rate = model.encoders[part].input.sample_rate
            assert rate is not None  # every encoder of sounds has one
            length = round(WINDOW * rate)
            decoders[name] = BlockDecoder(model.projections[part].out_features, self.frames * MELS)
            self.spectrograms[name] = MelSpectrogram(
                rate, 1 << (length - 1).bit_length(), length, round(HOP * rate), n_mels=MELS, pad_mode="constant"
            )
        self.decoders: Mapping[str, BlockDecoder] = nn.ModuleDict(decoders)  # type: ignore[assignment]

    def spans(self, name: str, batch: Batch) -> tuple[int, Tensor]:
        """Return the number of samples per span, and whether each span lies completely within its clip, (B, N) bool."""
        size = self.frames * self.spectrograms[name].hop_length
        mask = batch.masks[name]
        ends = size * (1 + torch.arange(mask.shape[1] // size, device=mask.device))
        return size, ends <= mask.sum(1, keepdim=True)

    def corrupt(self, batch: Batch, generator: torch.Generator | None) -> dict[str, tuple[Tensor | Features, Tensor]]:
        return {name: self.hide_spans(name, batch, generator) for name in self.inputs}

    def hide_spans(self, name: str, batch: Batch, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Mask random spans of the clips of an input, and warn once if no clip is long enough.

        Args:
            name: Name of the input.
            batch: The batch.
            generator: Random generator of the masks; None: torch's default generator.

        Returns:
            The waveforms (B, L) with zeros in the masked spans, and whether each span is masked, (B, N) bool.
        """
        x = raw(batch, name)
        size, there = self.spans(name, batch)
        hidden = draw(there, self.ratio, generator)
        if not hidden.any() and batch.masks[name].any() and not self.warned:
            self.warned = True
            rank_zero_warn(
                f"task.objectives: masked_audio hides nothing of a batch of '{name}', none of whose clips has two "
                f"spans of {self.frames * HOP:g} seconds; such clips teach nothing: lower span_seconds"
            )
        away = hidden.repeat_interleave(size, dim=1)
        return x.masked_fill(F.pad(away, (0, x.shape[1] - away.shape[1])), 0.0), hidden

    def compute_loss(
        self, batch: Batch, features: dict[str, Features], hidden: dict[str, Tensor]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: self.error(name, batch, of, hidden[name]) for name, of in features.items()}

    def error(self, name: str, batch: Batch, features: Features, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the mean absolute error of the masked spans of an input, and their number.

        Args:
            name: Name of the input.
            batch: The batch, with the complete waveforms.
            features: Features of the waveforms with masked spans.
            hidden: Whether each span is masked, (B, N) bool.

        Returns:
            The sum and the number of masked spans, both scalar tensors.
        """
        mask = batch.masks[name]
        size, _ = self.spans(name, batch)
        length = mask.sum(1, keepdim=True)  # (B, 1), samples
        centre = (torch.arange(hidden.shape[1], device=mask.device) + 0.5) * size / length.clamp(min=1)  # (B, N)
        told = self.decoders[name](features, torch.stack([torch.zeros_like(centre), centre], dim=-1))
        with torch.autocast(mask.device.type, enabled=False):
            power = self.spectrograms[name].to(mask.device)(raw(batch, name).float() * mask)  # (B, F, T)
            mel = standard((power + FLOOR).log(), length // self.spectrograms[name].hop_length)
            truth = mel[:, :, : hidden.shape[1] * self.frames].unflatten(2, (-1, self.frames))  # (B, F, N, frames)
            distance = (told.float() - truth.permute(0, 2, 3, 1).flatten(2)).abs().mean(2)  # (B, N)
        return (distance * hidden).sum(), hidden.sum()


def standard(mel: Tensor, frames: Tensor) -> Tensor:
    """Normalise a spectrogram to mean 0 and standard deviation 1 over the valid frames of each row.

    Args:
        mel: Log-mel spectrogram, (B, F, T).
        frames: Number of valid frames of each row, (B, 1); the others are padding.

    Returns:
        The normalised spectrogram, (B, F, T).
    """
    real = (torch.arange(mel.shape[2], device=mel.device) < frames).unsqueeze(1)
    count = (frames.unsqueeze(2) * mel.shape[1]).clamp(min=1)
    centred = mel - (mel * real).sum((1, 2), keepdim=True) / count
    return centred / ((centred.square() * real).sum((1, 2), keepdim=True) / count + 1e-5).sqrt()
