"""Train models that read text, images, sound and tables, in any combination."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.assembly.building import build
    from mm.assembly.diagnosis import diagnose
    from mm.assembly.prediction import predict
    from mm.assembly.profiling import benchmark, scale_batch
    from mm.assembly.training import bind_data, lightning_module, train
    from mm.baselines import baseline
    from mm.calibration import calibrate
    from mm.checkpoint import TrainedModel, load
    from mm.configurable import Configurable, configured
    from mm.contracts import check
    from mm.data.checking import check_data
    from mm.datamodules.manifest import Manifest
    from mm.datamodules.shards import shard
    from mm.encoders import wrap
    from mm.evaluation import evaluate, probe
    from mm.retrieval import embed, search
    from mm.runs.compare import compare

__version__ = "0.1.0"

__all__ = [
    "Configurable",
    "Manifest",
    "TrainedModel",
    "baseline",
    "benchmark",
    "bind_data",
    "build",
    "calibrate",
    "check",
    "check_data",
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
    "wrap",
]

# Packages that are available as attributes, such as `mm.fusion`.
_PACKAGES = (
    "baselines",
    "callbacks",
    "calibration",
    "checkpoint",
    "data",
    "encoders",
    "evaluation",
    "features",
    "fusion",
    "heads",
    "launch",
    "losses",
    "metrics",
    "modalities",
    "predictions",
    "profiling",
    "retrieval",
    "runs",
    "targets",
    "tasks",
    "transforms",
    "types",
)
__getattr__, __dir__ = lazy_exports(__name__, __file__, (*_PACKAGES, "__version__"))
