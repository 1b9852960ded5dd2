"""Metrics in addition to those of torchmetrics."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.metrics.answers import AnswerF1, ExactMatch
    from mm.metrics.average_precision import AveragePrecision
    from mm.metrics.bleu import Bleu
    from mm.metrics.chrf import ChrF
    from mm.metrics.classification_report import ClassificationReport
    from mm.metrics.entities import Entities
    from mm.metrics.label_average_precision import LabelAveragePrecision
    from mm.metrics.ranking import Ranking
    from mm.metrics.regression import MeanAbsoluteError, MeanSquaredError, R2Score, SpearmanCorrCoef
    from mm.metrics.relations import Relations
    from mm.metrics.retrieval import Retrieval
    from mm.metrics.rouge import Rouge

__all__ = [
    "AnswerF1",
    "AveragePrecision",
    "Bleu",
    "ChrF",
    "ClassificationReport",
    "Entities",
    "ExactMatch",
    "LabelAveragePrecision",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "R2Score",
    "Ranking",
    "Relations",
    "Retrieval",
    "Rouge",
    "SpearmanCorrCoef",
]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
