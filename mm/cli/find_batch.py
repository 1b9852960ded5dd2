"""Find the largest batch that trains, of the longest rows, per length bucket where there are any."""

from pathlib import Path
from typing import TYPE_CHECKING

from mm.cli._app import launch
from mm.files import shown
from mm.messages import quote

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mm.assembly.provenance import Provenance


def main(argv: list[str]) -> None:
    launch("find_batch", argv, job)


def job(cfg: "DictConfig", folder: Path, provenance: "Provenance") -> None:
    from mm.assembly.profiling import find_batch_config

    if unread := [key.by for key in provenance.named if key.key.split(".")[0] in ("logger", "callbacks")]:
        print(f"mm find_batch logs nothing and calls no callbacks; not read: {', '.join(unread)}")
    report = find_batch_config(cfg, folder, provenance)
    budgets = ", ".join(f"{name}: {most:g}" for name, most in report.budget.items())
    budget = f" {quote(f'datamodule.budget={{{budgets}}}')}" if budgets else ""
    print(f"type: datamodule.batch_size={report.batch_size}{budget}")
    print(shown(folder))
