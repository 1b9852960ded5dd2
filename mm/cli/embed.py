"""Write the embedding of every row: of each input, or of each tower of them, and of all together."""

from pathlib import Path
from typing import TYPE_CHECKING

from mm.cli._app import launch
from mm.files import shown
from mm.messages import command, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mm.assembly.provenance import Provenance


def main(argv: list[str]) -> None:
    launch("embed", argv, job)


def job(cfg: "DictConfig", folder: Path, provenance: "Provenance") -> None:
    from mm.assembly.model_data import build_model_data, load_model
    from mm.cli._render import print_faults
    from mm.retrieval import embed

    model = load_model(cfg, provenance)
    data = build_model_data(cfg, model, provenance, labelled=False)
    report = embed(model, data, folder / "embeddings.parquet", cfg.split, cfg.device)
    provenance.save(folder)
    print(plain(f"{data.source}: embeddings of {', '.join(f'{name} {n}' for name, n in report.counts.items())}"))
    print_faults(data, folder)
    words = ["mm", "search", f"checkpoint={cfg.checkpoint}", f"index={shown(report.path)}"]
    print(f"next:\n  {command(*words)} query=...")
    print(shown(folder))
