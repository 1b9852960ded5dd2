"""Check every row of the data that a config describes."""

from pathlib import Path

from omegaconf import DictConfig

from mm.assembly.config_checks import check_no_training
from mm.assembly.finish import build_data
from mm.assembly.provenance import Provenance
from mm.assembly.run import prepare_model
from mm.data.checking import DataReport, check_data
from mm.quiet import silence_lightning


def check_data_config(cfg: DictConfig, folder: Path, provenance: Provenance) -> DataReport:
    """Read every row of a config's data in the same way as training does, and list every fault.

    Args:
        cfg: The config of `mm check_data`.
        folder: The run folder, in which errors.csv and metrics.json are written if there are faults.
        provenance: The command and the keys that it sets.

    Raises:
        ValueError: If a setting is invalid, or if the table can't be read at all.
    """
    silence_lightning()
    check_no_training(cfg, "check data")
    cfg.datamodule.on_error = "missing"  # one fault must not hide another
    data = build_data(cfg)
    prepare_model(cfg, data, provenance)
    report = check_data(data)
    if not report.passed:
        report.save(folder)
        provenance.save(folder)
    return report
