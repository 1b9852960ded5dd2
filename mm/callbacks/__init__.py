"""Callbacks of the Lightning Trainer."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.callbacks.best_metrics import BestMetrics
    from mm.callbacks.gradient_blending import GradientBlending
    from mm.callbacks.gradient_modulation import GradientModulation
    from mm.callbacks.learning_rate import LearningRate
    from mm.callbacks.periodic_checkpoint import PeriodicCheckpoint
    from mm.callbacks.prediction_table import PredictionTable
    from mm.callbacks.progress import Progress
    from mm.callbacks.save_at_steps import SaveAtSteps
    from mm.callbacks.throughput import Throughput

__all__ = [
    "BestMetrics",
    "GradientBlending",
    "GradientModulation",
    "LearningRate",
    "PeriodicCheckpoint",
    "PredictionTable",
    "Progress",
    "SaveAtSteps",
    "Throughput",
]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
