"""Train models that read text, see images and hear sound, in any mixture."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mm.assembly.building import build as build
    from mm.assembly.diagnosis import diagnose as diagnose
    from mm.assembly.prediction import predict as predict
    from mm.assembly.profiling import benchmark as benchmark
    from mm.assembly.profiling import scale_batch as scale_batch
    from mm.assembly.training import bind_data as bind_data
    from mm.assembly.training import lightning_module as lightning_module
    from mm.assembly.training import train as train
    from mm.calibration import calibrate as calibrate
    from mm.checkpoint import TrainedModel as TrainedModel
    from mm.checkpoint import load as load
    from mm.configurable import Configurable as Configurable
    from mm.configurable import configured as configured
    from mm.contracts import check as check
    from mm.datamodules.manifest import Manifest as Manifest
    from mm.datamodules.shards import shard as shard
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
    "benchmark": "mm.assembly.profiling",
    "bind_data": "mm.assembly.training",
    "build": "mm.assembly.building",
    "calibrate": "mm.calibration",
    "check": "mm.contracts",
    "compare": "mm.runs.compare",
    "configured": "mm.configurable",
    "diagnose": "mm.assembly.diagnosis",
    "embed": "mm.retrieval",
    "evaluate": "mm.evaluation",
    "lightning_module": "mm.assembly.training",
    "load": "mm.checkpoint",
    "predict": "mm.assembly.prediction",
    "probe": "mm.evaluation",
    "scale_batch": "mm.assembly.profiling",
    "search": "mm.retrieval",
    "shard": "mm.datamodules.shards",
    "train": "mm.assembly.training",
}
# Rooms that are reached as attributes, such as `mm.fusion`.
_ROOMS = ("calibration", "checkpoint", "encoders", "evaluation", "fusion", "heads", "predictions", "retrieval", "runs")

__all__ = [
    "Configurable",
    "Manifest",
    "TrainedModel",
    "benchmark",
    "bind_data",
    "build",
    "calibrate",
    "check",
    "compare",
    "configured",
    "diagnose",
    "embed",
    "evaluate",
    "lightning_module",
    "load",
    "predict",
    "probe",
    "scale_batch",
    "search",
    "shard",
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
