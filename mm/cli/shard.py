"""Write the rows of a table file, and the media files that they name, into shards."""

from pathlib import Path
from typing import TYPE_CHECKING

from mm.cli._verb import run_verb
from mm.files import shown
from mm.messages import command, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mm.assembly.applied import Applied
    from mm.datamodules.shards import ShardReport


def main(argv: list[str]) -> None:
    run_verb("shard", argv, "mm.assembly.applied:shard_config", show)


def show(done: "Applied[ShardReport]", cfg: "DictConfig", folder: Path) -> None:
    """Print how many rows and shards there are, and how to train on them."""
    from mm.cli._render import print_faults

    report = done.report
    print_faults(done)
    rows = f"{report.rows} of {report.total} rows ({', '.join(report.inputs)})"
    print(plain(f"{report.source}: {rows} in {report.shards} shards, {report.size / 1e6:.1f} MB"))
    print(f"next:\n  {command('mm', 'train', 'datamodule=shards', f'datamodule.path={shown(report.folder)}')}")
    print(shown(report.folder))
