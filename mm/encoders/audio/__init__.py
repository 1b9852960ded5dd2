"""Encoders of audio, which map a waveform to one vector per time step."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.encoders.audio.conformer import AudioConformer
    from mm.encoders.audio.conv import AudioConv
    from mm.encoders.audio.huggingface import HuggingFaceAudio
    from mm.encoders.audio.log_mel import LogMel
    from mm.encoders.audio.resnet import AudioResNet

__all__ = ["AudioConformer", "AudioConv", "AudioResNet", "HuggingFaceAudio", "LogMel"]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
