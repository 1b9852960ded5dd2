"""Encoder with any audio model of transformers, which computes the model's features on its device."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.compliance.kaldi import get_mel_banks
from torchaudio.functional import melscale_fbanks
from transformers import AutoFeatureExtractor

from mm.absence import encode_present
from mm.configurable import Configurable
from mm.encoders._layers import huggingface_layers
from mm.encoders._source import huggingface_model, plain
from mm.layers import Pool, time_position
from mm.types import Features, InputSpec


class Waveform(nn.Module):
    """Convert waveforms to the input of wav2vec2, HuBERT and WavLM, which encode one token per 20 ms.

    The samples of each clip are normalised to mean 0 and standard deviation 1 if `do_normalize` of the feature
    extractor is set.
    """

    defaults: ClassVar[dict[str, Any]] = {"sampling_rate": 16000, "do_normalize": True}
    max_length = None

    def __init__(self, config: Any, sampling_rate: int, do_normalize: bool):
        super().__init__()
        self.conv = list(zip(config.conv_kernel, config.conv_stride))
        self.do_normalize = do_normalize
        self.least = 1  # number of samples of one token
        for kernel, stride in reversed(self.conv):
            self.least = (self.least - 1) * stride + kernel

    def forward(self, x: Tensor, mask: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Convert a batch of waveforms.

        Args:
            x: Samples, (B, L).
            mask: Mask of the samples, (B, L).

        Returns:
            The arguments of the model, the mask of its output tokens (B, T), and their positions (B, T, 2).
        """
        extra = max(self.least - x.shape[1], 0)
        x, mask = F.pad(x, (0, extra)), F.pad(mask, (0, extra))
        length = mask.sum(1, keepdim=True)  # (B, 1)
        if self.do_normalize:
            mean = x.sum(1, keepdim=True) / length.clamp(min=1)
            variance = ((x - mean) * mask).square().sum(1, keepdim=True) / length.clamp(min=1)
            x = (x - mean) * mask / (variance + 1e-7).sqrt()
        steps = length.clamp(min=self.least)  # an absent or tiny clip attends to one token of silence
        attended = torch.arange(x.shape[1], device=x.device) < steps
        total = x.shape[1]
        for kernel, stride in self.conv:
            steps, total = (steps - kernel) // stride + 1, (total - kernel) // stride + 1
        tokens = torch.arange(total, device=x.device) < steps * (length > 0)  # (B, T)
        return {"input_values": x, "attention_mask": attended.long()}, tokens, time_position(tokens)


class WhisperMel(nn.Module):
    """Convert waveforms to the log-mel spectrogram that Whisper reads (Radford et al. 2022), with one token per 20 ms.

    The spectrogram is padded to the model's fixed length of 30 s.
    """

    defaults: ClassVar[dict[str, Any]] = {"sampling_rate": 16000, "n_fft": 400, "hop_length": 160}
    bank: Tensor
    window: Tensor

    def __init__(self, config: Any, sampling_rate: int, n_fft: int, hop_length: int):
        super().__init__()
        self.n_fft, self.hop = n_fft, hop_length
        self.max_length = 2 * config.max_source_positions * hop_length  # samples; 2: stride of a convolution
        bank = melscale_fbanks(n_fft // 2 + 1, 0.0, 8000.0, config.num_mel_bins, sampling_rate, "slaney", "slaney")
        self.register_buffer("bank", bank, persistent=False)  # (n_fft / 2 + 1, F)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Convert a batch of waveforms, as `Waveform.forward` does.

        The mask has only as many tokens as the waveforms cover, without those of the padding to 30 s.
        """
        padded = F.pad(x, (0, self.max_length - x.shape[1]))
        power = torch.stft(padded, self.n_fft, self.hop, window=self.window, return_complex=True)[..., :-1].abs() ** 2
        mel = (power.transpose(1, 2) @ self.bank).transpose(1, 2).clamp(min=1e-10).log10()  # (B, F, T)
        mel = torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8.0)
        step = 2 * self.hop
        tokens = mask[:, ::step]  # a token is real if its first sample is
        return {"input_features": (mel + 4.0) / 4.0}, tokens, time_position(tokens)


class Fbank(nn.Module):
    """Convert waveforms to the Kaldi filter bank that AST reads (Gong et al. 2021), with one token per patch.

    The hop between two frames is 10 ms. The filter bank is padded to the model's fixed length.
    """

    # Mean and standard deviation of AudioSet.
    defaults: ClassVar[dict[str, Any]] = {
        "sampling_rate": 16000,
        "mean": -4.2677393,
        "std": 4.5689974,
        "do_normalize": True,
    }
    bank: Tensor
    window: Tensor

    def __init__(self, config: Any, sampling_rate: int, mean: float, std: float, do_normalize: bool):
        super().__init__()
        self.config = config
        self.mean, self.std = (mean, 2 * std) if do_normalize else (0.0, 1.0)
        self.size, self.hop = int(0.025 * sampling_rate), int(0.010 * sampling_rate)  # samples
        self.n_fft = 1 << (self.size - 1).bit_length()
        self.max_length = self.size + (config.max_length - 1) * self.hop
        bank = get_mel_banks(config.num_mel_bins, self.n_fft, sampling_rate, 20.0, 0.0, 100.0, -500.0, 1.0)[0]
        self.register_buffer("bank", F.pad(bank, (0, 1)).T.contiguous(), persistent=False)  # (n_fft / 2 + 1, F)
        self.register_buffer("window", torch.hann_window(self.size, periodic=False), persistent=False)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Convert a batch of waveforms, as `Waveform.forward` does."""
        frame = F.pad(x, (0, self.max_length - x.shape[1])).unfold(1, self.size, self.hop)  # (B, T, size)
        frame = frame - frame.mean(2, keepdim=True)
        frame = frame - 0.97 * torch.cat([frame[..., :1], frame[..., :-1]], dim=2)  # pre-emphasis
        power = torch.fft.rfft(F.pad(frame * self.window, (0, self.n_fft - self.size))).abs() ** 2
        bank = (power @ self.bank).clamp(min=torch.finfo(torch.float32).eps).log()  # (B, T, F)
        length = mask.sum(1, keepdim=True)
        frames = ((length - self.size) // self.hop + 1).clamp(min=1) * (length > 0)  # (B, 1)
        real = torch.arange(bank.shape[1], device=x.device) < frames
        bank = (bank * real.unsqueeze(2) - self.mean) / self.std
        c = self.config
        rows = (c.num_mel_bins - c.patch_size) // c.frequency_stride + 1
        columns = (c.max_length - c.patch_size) // c.time_stride + 1
        start = torch.arange(columns, device=x.device) * c.time_stride  # frames
        patch = (start < frames).repeat(1, rows)  # (B, rows * columns), mel by mel
        time = ((start + c.patch_size / 2) / frames.clamp(min=1)).clamp(max=1).repeat(1, rows)
        # The class token and the distillation token come first.
        tokens = torch.cat([(length > 0).expand(-1, 2), patch], dim=1)
        time = F.pad(time, (2, 0), value=0.5)
        return {"input_values": bank}, tokens, torch.stack([torch.zeros_like(time), time], dim=-1)


FRONTENDS = {"whisper": WhisperMel, "audio-spectrogram-transformer": Fbank}  # all other models read the waveform


class HuggingFaceAudio(Configurable, nn.Module):
    """Encode sounds by the last hidden state of any audio model of transformers.

    Tested models are wav2vec2, HuBERT, WavLM, the encoder of Whisper, and AST. Layer drop and the masking of the model
    are switched off. Whisper and AST read a fixed number of samples, `input.max_length`, and attend to the silence
    after a clip, as in their training. wav2vec2 and HuBERT with `feat_extract_norm: group` (the base models) normalise
    over the complete row, so that padding changes their features (by 1.6 in one test). With `feat_extract_norm: layer`,
    padding does not change them.

    Args:
        pretrained: Folder or hub name of the weights; exclusive with `config`.
        config: Fields of a transformers config with its `model_type`, for random weights.
        random_init: Whether to ignore the weights of `pretrained` and to use its architecture only.
        features: Settings of the feature extractor; None: those saved with `pretrained`, or the defaults of the model
            family.
        pool: Pooling of the tokens: `mean`, `first`, `last`, `max` or `attention`.

    Raises:
        ValueError: If not exactly one of `pretrained` and `config` is given.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        config: Mapping[str, Any] | None = None,
        random_init: bool = False,
        features: Mapping[str, Any] | None = None,
        pool: str = "mean",
    ):
        super().__init__()
        self.model, plain_config = huggingface_model(pretrained, config, random_init, "audio")
        frontend = FRONTENDS.get(self.model.config.model_type, Waveform)
        saved = (
            AutoFeatureExtractor.from_pretrained(pretrained, trust_remote_code=False).to_dict()
            if pretrained and not features
            else {}
        )
        settings = frontend.defaults | {k: v for k, v in saved.items() if k in frontend.defaults}
        settings |= plain(features or {})
        self.frontend = frontend(self.model.config, **settings)
        self.embed_dim = self.model.config.hidden_size
        self.input = InputSpec(
            modality="audio", sample_rate=settings["sampling_rate"], max_length=self.frontend.max_length
        )
        self.architecture = {"pretrained": None, "config": plain_config, "random_init": True, "features": settings}
        self.pool = Pool(pool, self.embed_dim)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments that rebuild this architecture without downloading its pretrained weights.

        Returns:
            Keyword arguments of the constructor. The rebuilt module has random weights, to be replaced by
            `load_state_dict`.
        """
        return super().get_config() | self.architecture

    def layer_order(self) -> list[list[str]]:
        """Return the prefixes of the parameter names of each layer, from input to output."""
        sound = torch.zeros(1, self.input.max_length or self.input.sample_rate or 16000)
        inputs, _, _ = deepcopy(self.frontend).cpu()(sound, torch.ones_like(sound, dtype=torch.bool))
        inputs.pop("attention_mask", None)
        layers = huggingface_layers(self.architecture["config"], "audio", inputs)
        return [*layers[:-1], [*layers[-1], "pool"]]

    def forward(self, x: Tensor, mask: Tensor) -> Features:
        """Encode a batch of waveforms.

        Args:
            x: Samples, (B, L).
            mask: Mask of the samples, (B, L).

        Returns:
            Features with the tokens (B, T, D) of the model's last hidden state.
        """
        return encode_present(self, self.encode, x, mask)

    def encode(self, x: Tensor, mask: Tensor) -> Features:
        if self.input.max_length and x.shape[1] > self.input.max_length:
            raise ValueError(
                f"audio: got {x.shape[1]} samples, but the model reads at most {self.input.max_length}; "
                "cut the clips, or let the datamodule's `overflow` do it"
            )
        with torch.autocast(x.device.type, enabled=False):
            inputs, real, position = self.frontend(x.float() * mask, mask)
        tokens = self.model(**inputs).last_hidden_state[:, : real.shape[1]]
        return Features(tokens, real, self.pool(tokens, real), position)
