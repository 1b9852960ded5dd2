"""Functions of the verbs `mm calibrate`, `mm embed` and `mm shard`, each called with the config of the verb."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from omegaconf import DictConfig

from mm.assembly import finish
from mm.assembly.model_data import build_model_data, load_model
from mm.assembly.provenance import Provenance
from mm.calibration import CalibrationReport, calibrate
from mm.calibration.calibrate import check_alpha, check_split
from mm.calibration.threshold import check_threshold
from mm.data.module import DataModule
from mm.datamodules.manifest import ManifestDataModule
from mm.datamodules.shards import ShardReport, shard
from mm.reports import Report
from mm.retrieval import EmbeddingReport, embed
from mm.runs.results import write_figures, write_metrics

R = TypeVar("R", bound=Report)


@dataclass
class Applied(Generic[R]):
    """Result of a verb that changes a model directory, or that writes files from data.

    Attributes:
        report: The report of the function that the verb calls.
        source: Name of the data.
        files: Kind of each written file, such as `errors`, to its path.
        faulty_rows: Number of rows with at least one cell that could not be read.
    """

    report: R
    source: str
    files: dict[str, Path] = field(default_factory=dict)
    faulty_rows: int = 0


def calibrate_config(cfg: DictConfig, folder: Path, provenance: Provenance) -> Applied[CalibrationReport]:
    """Calibrate the confidence of a model on the data of a config, and write the calibration into the model directory.

    Args:
        cfg: The config of `mm calibrate`.
        folder: The run folder.
        provenance: The command and the keys that it sets.

    Raises:
        ValueError: If a setting is invalid, if the model is a W&B artifact, or if it has no head.
    """
    check_split(cfg.split)
    check_alpha(cfg.alpha)
    check_threshold(cfg.threshold)
    if str(cfg.checkpoint).startswith("wandb:"):
        raise ValueError(f"checkpoint={cfg.checkpoint}: mm calibrate writes into it: wanted a folder of your own")
    model = load_model(cfg, provenance)
    if not len(model.model.heads):
        raise ValueError(f"{model.path}: this model has no head to calibrate; choose one that predicts a target")
    data = build_model_data(cfg, model, provenance, labelled=True, drawn=cfg.split == "val")
    rows = f"validation rows of {data.source} (drawn where it names none, with val={data.split.val:g}, "
    rows += f"seed={data.split.seed})"
    if cfg.split == "all":
        rows = f"rows of {data.source}, which the model must not have been trained on"
    report = calibrate(model, data, cfg.alpha, cfg.split, cfg.seed, cfg.device, rows, True, cfg.threshold)
    assert model.path is not None
    report.update_directory(model.path)
    provenance.save(folder)
    files = {"model": model.path, "metrics": write_metrics(folder, report.metrics, {})}
    files |= {path.stem: path for path in write_figures(folder, report.figures)}
    return Applied(report, data.source, files | write_errors(data, folder), count_faulty_rows(data))


def embed_config(cfg: DictConfig, folder: Path, provenance: Provenance) -> Applied[EmbeddingReport]:
    """Write the embeddings of the rows of a config's data into `embeddings.parquet` in the run folder.

    Args:
        cfg: The config of `mm embed`.
        folder: The run folder.
        provenance: The command and the keys that it sets.
    """
    model = load_model(cfg, provenance)
    data = build_model_data(cfg, model, provenance, labelled=False)
    report = embed(model, data, folder / "embeddings.parquet", cfg.split, cfg.device)
    provenance.save(folder)
    return Applied(report, data.source, write_errors(data, folder), count_faulty_rows(data))


def shard_config(cfg: DictConfig, folder: Path, provenance: Provenance) -> Applied[ShardReport]:
    """Write the rows of a config's data, and the media files that they name, into shards.

    Args:
        cfg: The config of `mm shard`.
        folder: The run folder; only errors.csv is written into it.
        provenance: The command and the keys that it sets.

    Raises:
        ValueError: If a setting is invalid, or if the data is neither a table file nor a folder of files.
    """
    data = finish.build_data(cfg, codecs=False, draw_split=False)
    if not isinstance(data, ManifestDataModule):
        raise ValueError("mm shard: wanted a table file or a folder: datamodule=manifest, text, vision or audio")
    report = shard(data, cfg.out, shard_size_mb=cfg.shard_size_mb, seed=cfg.seed)
    return Applied(report, report.source, write_errors(data, folder), count_faulty_rows(data))


def write_errors(data: DataModule, folder: Path) -> dict[str, Path]:
    """Write errors.csv if cells could not be read, and return the key `errors` with its path, otherwise nothing."""
    if not data.faults:
        return {}
    data.write_errors(folder / "errors.csv")
    return {"errors": folder / "errors.csv"}


def count_faulty_rows(data: DataModule) -> int:
    """Return the number of rows with at least one cell that could not be read."""
    return len({row for row, _ in data.faults})
