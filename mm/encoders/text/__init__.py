"""Encoders of text, which map token IDs to one vector per token."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.encoders.text.hashed_ngrams import TextHashedNgrams
    from mm.encoders.text.huggingface import HuggingFaceText
    from mm.encoders.text.mlp import TextMLP
    from mm.encoders.text.recurrent import TextRecurrent
    from mm.encoders.text.transformer import TextTransformer

__all__ = ["HuggingFaceText", "TextHashedNgrams", "TextMLP", "TextRecurrent", "TextTransformer"]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
