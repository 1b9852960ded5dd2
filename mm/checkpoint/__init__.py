"""Loading and saving of trained models as plain directories, which can be loaded without Lightning, Hydra or pickle."""

from mm.checkpoint.classes import build, build_metrics, check_classes, find_class
from mm.checkpoint.config import read_config, write_config
from mm.checkpoint.hub import fetch
from mm.checkpoint.loading import load, weights
from mm.checkpoint.saving import save, save_calibration, try_save
from mm.checkpoint.trained_model import TrainedModel, to_device

__all__ = [
    "TrainedModel",
    "build",
    "build_metrics",
    "check_classes",
    "fetch",
    "find_class",
    "load",
    "read_config",
    "save",
    "save_calibration",
    "to_device",
    "try_save",
    "weights",
    "write_config",
]
