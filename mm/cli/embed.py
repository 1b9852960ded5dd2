"""Write the embeddings of all rows: of each input or tower, and of all inputs together."""

from pathlib import Path
from typing import TYPE_CHECKING

from mm.cli._verb import run_verb
from mm.files import shown
from mm.messages import command, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mm.assembly.applied import Applied
    from mm.retrieval import EmbeddingReport


def main(argv: list[str]) -> None:
    run_verb("embed", argv, "mm.assembly.applied:embed_config", show)


def show(done: "Applied[EmbeddingReport]", cfg: "DictConfig", folder: Path) -> None:
    """Print how many vectors there are, and how to search them."""
    from mm.cli._render import print_faults

    counts = ", ".join(f"{name} {count}" for name, count in done.report.counts.items())
    print(plain(f"{done.source}: embeddings of {counts}"))
    print_faults(done)
    words = ["mm", "search", f"checkpoint={cfg.checkpoint}", f"index={shown(done.report.path)}"]
    print(f"next:\n  {command(*words)} query=...")
    print(shown(folder))
