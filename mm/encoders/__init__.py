"""Encoders, each of which maps one input to Features: one vector per token, with a mask.

Shapes in this package: B rows of a batch, T tokens, D width of the encoder (`embed_dim`), L samples of a waveform, C
channels, H and W height and width of an image.
"""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.encoders.audio import AudioConformer, AudioConv, AudioResNet, HuggingFaceAudio
    from mm.encoders.tabular import TabularMLP, TabularTransformer
    from mm.encoders.text import HuggingFaceText, TextHashedNgrams, TextMLP, TextRecurrent, TextTransformer
    from mm.encoders.vision import HuggingFaceVision, TimmVision, VisionConv, VisionResNet
    from mm.encoders.wrapped import TorchvisionModel, WrappedEncoder, wrap

__all__ = [
    "AudioConformer",
    "AudioConv",
    "AudioResNet",
    "HuggingFaceAudio",
    "HuggingFaceText",
    "HuggingFaceVision",
    "TabularMLP",
    "TabularTransformer",
    "TextHashedNgrams",
    "TextMLP",
    "TextRecurrent",
    "TextTransformer",
    "TimmVision",
    "TorchvisionModel",
    "VisionConv",
    "VisionResNet",
    "WrappedEncoder",
    "wrap",
]

__getattr__, __dir__ = lazy_exports(__name__, __file__, ("audio", "tabular", "text", "vision"))
