"""One of several classes."""

from typing import Any

from torch import Tensor

from mm.heads._classifying import PooledClassifier
from mm.types import Features


class ClassificationHead(PooledClassifier):
    """Which of the classes a row is of. The arguments are PooledClassifier's."""

    def decode(self, prediction: Tensor, fused: Features, meta: dict[str, Tensor]) -> list[dict[str, Any]]:
        """(B, C) -> {"prediction": class, "probability": {class: 0..1}} per row"""
        return [{"prediction": best, "probability": chances} for best, chances in self.chances(prediction)]
