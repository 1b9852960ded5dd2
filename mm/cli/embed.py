"""Write the embedding of every row: of each input, or of each tower of them, and of all together."""

from pathlib import Path
from typing import TYPE_CHECKING

from mm.cli._app import launch, save_overrides, shown
from mm.messages import command, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(argv: list[str]) -> None:
    launch("embed", argv, job)


def job(cfg: "DictConfig", folder: Path) -> None:
    from mm.cli import _apply
    from mm.retrieval import embed

    model = _apply.load(cfg)
    data = _apply.datamodule(cfg, model, labelled=False)
    report = embed(model, data, folder / "embeddings.parquet", cfg.split, cfg.device)
    save_overrides(folder)
    print(plain(f"{data.source}: embeddings of {', '.join(f'{name} {n}' for name, n in report.counts.items())}"))
    if data.faults:
        data.write_errors(folder / "errors.csv")
        wrong = len({row for row, _ in data.faults})
        print(f"rows that could not be read as a whole: {wrong}, told in {plain(shown(folder / 'errors.csv'))}")
    words = ["mm", "search", f"checkpoint={cfg.checkpoint}", f"index={shown(report.path)}"]
    print(f"next:\n  {command(*words)} query=...")
    print(shown(folder))
