"""Write a table file's rows and the media they name into shards."""

from pathlib import Path
from typing import TYPE_CHECKING

from mm.cli._app import launch, shown
from mm.messages import command, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(argv: list[str]) -> None:
    launch("shard", argv, job)


def job(cfg: "DictConfig", folder: Path) -> None:
    from mm.assembly import finish
    from mm.datamodules.manifest import ManifestDataModule
    from mm.datamodules.shards import write_shards

    if (
        not isinstance(cfg.shard_size_mb, int | float)
        or isinstance(cfg.shard_size_mb, bool)
        or not cfg.shard_size_mb > 0
    ):
        raise ValueError(f"shard_size_mb: got {cfg.shard_size_mb}, wanted MB above 0")
    module = finish.build_data(cfg, codecs=False, whole=True)
    if not isinstance(module, ManifestDataModule):
        raise ValueError("mm shard: wanted a table file or a folder: datamodule=manifest, text, vision or audio")
    out = Path(cfg.out).absolute()
    about, table = write_shards(module, out, round(cfg.shard_size_mb * 1e6), cfg.seed)
    if module.faults:
        module.write_errors(folder / "errors.csv")
        wrong = len({row for row, _ in module.faults})
        print(f"rows that could not be read as a whole: {wrong}, told in {plain(shown(folder / 'errors.csv'))}")
    rows, size = sum(shard[2] for shard in about.shards), sum(shard[1] for shard in about.shards)
    what = f"{rows} of {len(table.ids)} rows ({', '.join(about.inputs)})"
    print(plain(f"{table.source}: {what} in {len(about.shards)} shards, {size / 1e6:.1f} MB"))
    print(f"next:\n  {command('mm', 'train', 'datamodule=shards', f'datamodule.path={shown(out)}')}")
    print(shown(out))
