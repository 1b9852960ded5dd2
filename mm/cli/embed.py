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
    from tqdm import tqdm

    from mm.applying import find_device
    from mm.checkpoint import to_device
    from mm.cli import _apply, _index

    loaded = _apply.load(cfg)
    datamodule = _apply.datamodule(cfg, loaded, labelled=False)
    device = find_device(cfg.device)
    model, table = loaded.model.to(device), datamodule.table
    loader = datamodule.loader(cfg.split)
    path = folder / "embeddings.parquet"
    writer = _index.Writer(
        path,
        next(iter(model.projections.values())).out_features,
        table.ids,
        {name: [table.inputs[one] for one in inputs] for name, inputs in _index.sides(model).items()},
        {"model": _index.fingerprint(loaded.path)},
    )
    for batch in tqdm(loader, desc="embed", leave=False, disable=None):  # None: where nobody watches
        writer.add(_index.embed(model, datamodule.finish(to_device(batch, device))))
    writer.close()
    save_overrides(folder)
    counts = ", ".join(f"{name.removesuffix('/embedding')} {count}" for name, count in writer.counts.items())
    print(plain(f"{table.source}: embeddings of {counts}"))
    if datamodule.faults:
        datamodule.write_errors(folder / "errors.csv")
        wrong = len({row for row, _ in datamodule.faults})
        print(f"rows that could not be read as a whole: {wrong}, told in {plain(shown(folder / 'errors.csv'))}")
    print(f"next:\n  {command('mm', 'search', f'checkpoint={cfg.checkpoint}', f'index={shown(path)}')} query=...")
    print(shown(folder))
