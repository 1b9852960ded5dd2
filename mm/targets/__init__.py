"""Target codecs: from a cell of a table to a training target, and from a prediction to readable form."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.targets.boxes import BoxTarget
    from mm.targets.classes import ClassTarget
    from mm.targets.multilabel import MultilabelTarget
    from mm.targets.regression import RegressionTarget
    from mm.targets.span import SpanTarget
    from mm.targets.tags import TagTarget
    from mm.targets.text import TextTarget
    from mm.targets.transcript import TranscriptTarget

__all__ = [
    "BoxTarget",
    "ClassTarget",
    "MultilabelTarget",
    "RegressionTarget",
    "SpanTarget",
    "TagTarget",
    "TextTarget",
    "TranscriptTarget",
]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
