"""Look into a run: which batches were not finite and where, and which inputs its model does without.

mm diagnose run=NAME [paths.outputs=outputs] [rows=256] [allow=my_pkg]: NAME may be the run's folder as well; rows:
how many of the training split inputs are weighed on; allow: packages of your own whose classes the run's config may
name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mm.messages import cell, plain

DEFAULTS = {"run": "", "paths.outputs": "outputs", "rows": "256", "allow": ""}
# What of a run's config is built, and which packages it may name beside those that model directories may.
BUILT = {
    "datamodule": ["mm.datamodules"],
    "model": [],
    "peft": ["peft"],
    "task": ["mm.tasks", "mm.losses", "mm.metrics", "torch.optim", "timm.optim"],
}
USAGE = "usage: mm diagnose run=NAME [paths.outputs=outputs] [rows=256] [allow=my_pkg]"


def main(argv: list[str]) -> None:
    from mm.cli._import_path import add_working_directory
    from mm.messages import near

    given = DEFAULTS | {key: value for key, _, value in (a.lstrip("-").partition("=") for a in argv)}
    for key in given:
        if key not in DEFAULTS:
            raise ValueError(f"mm diagnose: no key '{key}'{near(key, DEFAULTS)}; {USAGE}")
    if not given["run"] or not given["rows"].isdigit() or not int(given["rows"]):
        raise ValueError(USAGE)
    folder = Path(given["paths.outputs"]) / given["run"]
    if (Path(given["run"]) / "config.yaml").is_file():
        folder = Path(given["run"])
    if not (folder / "config.yaml").is_file():
        raise ValueError(f"there is no run in {folder}: it has no config.yaml")
    add_working_directory()
    datamodule, task = rebuild(folder, [name for name in given["allow"].strip("[]").split(",") if name])
    for path in sorted((folder / "nonfinite").glob("*.pt")):
        replay(path, datamodule, task)
    weigh(folder, datamodule, task.model, int(given["rows"]))


def rebuild(folder: Path, allow: Sequence[str]) -> tuple[Any, Any]:
    """Build the data and the task, with its model, of a run from its finished config."""
    from omegaconf import OmegaConf, open_dict

    from mm.assembly import finish
    from mm.assembly.construct import build, escape, read_resolved
    from mm.assembly.renamed import upgrade_run_config
    from mm.checkpoint import check_classes
    from mm.cli import _teachers, _weights
    from mm.quiet import silence_lightning
    from mm.tasks.pretraining import Pretraining
    from mm.tasks.supervised import Supervised

    silence_lightning()
    config = upgrade_run_config(read_resolved(folder / "config.yaml"))
    for part, packages in BUILT.items():
        check_classes(without_metrics(config.get(part)) if part == "model" else config.get(part), [*allow, *packages])
    cfg: Any = OmegaConf.create(escape(config))
    datamodule = finish.build_data(cfg)
    datamodule.use({name: build(cfg, f"datamodule.transforms.{name}") for name in cfg.datamodule.transforms})
    model = finish.build_model(cfg)
    with open_dict(cfg):
        cfg.resume = True  # weights are loaded into the adapters, not those that they started from
        cfg.allow = list(allow)
    _weights.adapt(cfg, model)
    made = build(cfg, "task", _partial_=True)
    parts: dict[str, Any] = {"metrics": {name: {} for name in model.heads}} if made.func is Supervised else {}
    for name, path in ((cfg.task.get("distillation") or {}).get("teachers") or {}).items():
        if not Path(path).is_dir():  # nothing is downloaded because a run folder says so
            raise ValueError(f"task.distillation.teachers.{name}: there is no model directory at {path}; put it there")
    task = made(model=model, **parts, **_teachers.load(cfg, datamodule.transforms))
    if isinstance(task, Pretraining):
        task.prepare(datamodule.transforms)
    return datamodule, task


def without_metrics(model: Any) -> Any:
    """Return the config of a model without the metrics of its heads, which are not built here."""
    heads = model.get("heads") if isinstance(model, dict) else None
    if not isinstance(heads, dict):
        return model
    return {
        **model,
        "heads": {name: {k: v for k, v in head.items() if k != "metrics"} for name, head in heads.items() if head},
    }


def read_kept(path: Path) -> dict[str, Any]:
    """Read a file of tensors and plain data. Raise ValueError where it is damaged, or would run something."""
    import pickle

    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        told = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path}: is damaged, or not of mm: {told}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: got a {type(found).__name__}, wanted what a run keeps")
    return found


def put_weights(path: Path, model: Any, weights: Any) -> None:
    """Load weights into a model. Raise ValueError where they are another model's."""
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        told = " ".join(str(error).split())
        raise ValueError(f"{path}: holds weights of another model: {told:.300}") from None


def replay(path: Path, datamodule: Any, task: Any) -> None:
    """Which rows of a kept batch are at fault, and the first module that shows it."""
    from mm.tasks.nonfinite import first_nonfinite, unpack
    from mm.types import pick

    kept = read_kept(path)
    if kept["weights"] is None:
        print(f"{path.name}: was kept by one of several processes that shared the weights out, and can't be replayed")
        return
    model = task.model
    put_weights(path, model, kept["weights"])
    batch = unpack(kept["batch"])
    print(f"{path.name}: {kept['what']} was not finite; {len(batch.row)} rows")
    task.train()
    place = first_nonfinite(model, lambda: task.replay(batch))
    print(f"  first in {plain(place)}" if place else "  every module's output is finite when replayed")
    bad = []
    for i, row in enumerate(batch.row.tolist()):
        one = pick(batch, slice(i, i + 1))
        if row >= 0 and first_nonfinite(model, lambda one=one: task.replay(one)):
            bad.append(datamodule.table.name(row))
    some = bad and len(bad) < len(batch.row)
    told = "\n  ".join(map(plain, bad)) if some else "every row" if bad else "no row"
    print(f"  not finite when computed alone: {told}")


def weigh(folder: Path, datamodule: Any, model: Any, count: int) -> None:
    """What each input is worth to the newest checkpoint's weights."""
    from rich.console import Console
    from rich.table import Table

    from mm import checkpoint
    from mm.callbacks.periodic_checkpoint import newest_first, usable
    from mm.cli._app import shown
    from mm.explain.influence import dead, influence

    if not len(model.heads):
        print("the model predicts nothing, so what its inputs are worth to it can't be said")
        return
    path = next((p for p in newest_first(folder / "checkpoints") if p.is_file() and usable(p)), None)
    if path is not None:
        saved = read_kept(path)["state_dict"]
        weights = {name.removeprefix("model."): x for name, x in saved.items() if name.startswith("model.")}
    elif (folder / "model").is_dir():  # a sharded run's checkpoints are folders, which only its processes read
        path, weights = folder / "model", checkpoint.weights(folder / "model")
    else:
        print(f"{shown(folder)} holds no checkpoint: what its inputs are worth can't be said")
        return
    put_weights(path, model, weights)
    rows = datamodule.rows("train")
    found = influence(model, datamodule.batch(rows[:: max(1, len(rows) // count)][:count].tolist()))
    table = Table("input", "rows", "part of the gradient", "predictions change without it", "loss rises without it")
    for name, one in found.items():
        table.add_row(cell(name), str(one.rows), f"{one.gradient:.1%}", f"{one.change:.1%}", f"{one.loss:+.4f}")
    print(f"{plain(shown(path))}, on training rows that have the input and another one:")
    Console(width=None if Console().is_terminal else 120).print(table)
    for name, why in dead(found).items():
        print(
            f"'{plain(name)}' looks dead: {why}. Is its column right, its encoder frozen, its learning rate too small?"
        )
    if not any(one.rows for one in found.values()):
        print("none of these rows has two inputs: what one is worth beside the others can't be said")
    elif not dead(found):
        print("every input is alive")
