"""Train models that read text, see images and hear sound, in any mixture."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mm.assembly.building import build as build
    from mm.assembly.training import bind_data as bind_data
    from mm.assembly.training import lightning_module as lightning_module
    from mm.assembly.training import train as train
    from mm.calibration import calibrate as calibrate
    from mm.checkpoint import TrainedModel as TrainedModel
    from mm.checkpoint import load as load
    from mm.configurable import Configurable as Configurable
    from mm.configurable import configured as configured
    from mm.datamodules.manifest import Manifest as Manifest
    from mm.evaluation import evaluate as evaluate
    from mm.evaluation import probe as probe
    from mm.retrieval import embed as embed
    from mm.retrieval import search as search
    from mm.runs.compare import compare as compare

__version__ = "0.1.0"

# Public name to the module that defines it. Importing `mm` imports none of them: each is loaded on first use.
_EXPORTS = {
    "Configurable": "mm.configurable",
    "Manifest": "mm.datamodules.manifest",
    "TrainedModel": "mm.checkpoint",
    "bind_data": "mm.assembly.training",
    "build": "mm.assembly.building",
    "calibrate": "mm.calibration",
    "compare": "mm.runs.compare",
    "configured": "mm.configurable",
    "embed": "mm.retrieval",
    "evaluate": "mm.evaluation",
    "lightning_module": "mm.assembly.training",
    "load": "mm.checkpoint",
    "probe": "mm.evaluation",
    "search": "mm.retrieval",
    "train": "mm.assembly.training",
}
# Rooms that are reached as attributes, such as `mm.fusion`.
_ROOMS = ("calibration", "checkpoint", "encoders", "evaluation", "fusion", "heads", "predictions", "retrieval", "runs")

__all__ = [
    "Configurable",
    "Manifest",
    "TrainedModel",
    "bind_data",
    "build",
    "calibrate",
    "compare",
    "configured",
    "embed",
    "evaluate",
    "lightning_module",
    "load",
    "probe",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    """Return a public name, whose module is imported on first use."""
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    if name in _ROOMS:
        return import_module(f"mm.{name}")
    raise AttributeError(f"module 'mm' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Return the public names, which a notebook completes."""
    return sorted([*_EXPORTS, *_ROOMS, "__version__"])
