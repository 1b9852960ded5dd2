"""Heads, each of which predicts one target from the fused features.

Shapes in this package: B rows of a batch, T tokens, D width of the fused features (`model.embed_dim`), C classes, U
tokens or symbols of a target text, V tokens of a vocabulary.
"""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.heads.base import Head
    from mm.heads.causal_lm import CausalLMHead
    from mm.heads.classification import ClassificationHead
    from mm.heads.ctc import CTCHead
    from mm.heads.detection import DetectionHead
    from mm.heads.multilabel import MultilabelHead
    from mm.heads.regression import RegressionHead
    from mm.heads.relation import RelationHead
    from mm.heads.seq2seq import Seq2SeqHead
    from mm.heads.span import SpanHead
    from mm.heads.token_classification import TokenClassificationHead

__all__ = [
    "CTCHead",
    "CausalLMHead",
    "ClassificationHead",
    "DetectionHead",
    "Head",
    "MultilabelHead",
    "RegressionHead",
    "RelationHead",
    "Seq2SeqHead",
    "SpanHead",
    "TokenClassificationHead",
]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
