"""Make a model directory's confidence true, by its validation rows."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm.cli._app import launch, remember, shown
from mm.messages import plain

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mm.checkpoint import LoadedModel


def main(argv: list[str]) -> None:
    launch("calibrate", argv, job)


def job(cfg: "DictConfig", folder: Path) -> None:

    from mm import checkpoint
    from mm.cli import _apply, _calibration, _results, _run
    from mm.metrics.calibration import figure

    check(cfg)
    loaded = _apply.load(cfg)
    model, several = loaded.model, len(loaded.model.heads) > 1
    if not len(model.heads):
        raise ValueError(f"{loaded.path}: this model predicts nothing: it has no head whose confidence could be true")
    datamodule = _apply.datamodule(cfg, loaded, labelled=True, drawn=cfg.split == "val")
    rows = splits(datamodule, cfg.split)
    for split in rows.values():
        check_unseen(loaded, datamodule, split)
    model.calibration = {}
    model.to(_apply.find_device(cfg.device))
    seen = {place: _calibration.collect(model, datamodule, split) for place, split in rows.items()}
    fitted, left = _calibration.fit(model, seen["val"], cfg.conformal, cfg.seed)

    results: dict[str, dict[str, float]] = {}
    best: dict[str, dict[str, float]] = {}
    figures = {}
    for name, calibration in fitted.items():
        for place in rows:
            found, pairs = _calibration.measure(seen[place][name], calibration, tested=place == "test")
            key = f"{place}/{name}" if several else place
            if found:
                results[key] = best[name] = found
            if pairs:
                figures[f"{key}/reliability"] = partial(figure, pairs)
    told = f"{len(datamodule.rows(rows['val']))} {about(datamodule, cfg.split)}"
    told += "; the checkpoint may have been chosen by the same rows" if cfg.split == "val" else ""
    told += _calibration.uses(seen, cfg.conformal, cfg.seed)
    checkpoint.calibrate(loaded.path, fitted, _calibration.summary(fitted, best, told))

    remember(folder)
    numbers: dict[str, Any] = {f"{key}/{n}": value for key, found in results.items() for n, value in found.items()}
    numbers |= _run.data_counts(datamodule)
    saved = {"model": loaded.path, "metrics": _results.write_metrics(folder, numbers, {})}
    saved |= {path.stem: path for path in _results.write_figures(folder, figures)}
    if datamodule.faults:
        saved["errors"] = folder / "errors.csv"
        datamodule.write_errors(saved["errors"])
    _calibration.show(results)
    print(plain(f"calibrated by {told}"))
    for line in [*(f"{name}: {why}" for name, why in left.items()), *_results.notes(numbers)]:
        print(f"  {plain(line)}")
    for what, path in saved.items():
        print(f"{what:16} {plain(shown(path))}")
    print(shown(folder))


def check(cfg: "DictConfig") -> None:
    """Errors: ValueError where a setting is none of its values, or the model can't be written to."""
    if cfg.split not in ("val", "all"):
        raise ValueError(f"split: got '{cfg.split}', wanted val, or all for a file that the model never saw")
    alpha = cfg.conformal
    if alpha is not None and (type(alpha) not in (int, float) or not 0 < alpha < 1):
        raise ValueError(f"conformal: got {alpha}, wanted a part of the rows between 0 and 1, such as 0.1, or null")
    if str(cfg.checkpoint).startswith("wandb:"):
        raise ValueError(f"checkpoint={cfg.checkpoint}: mm calibrate writes into it: wanted a folder of your own")


def splits(datamodule: Any, split: str) -> dict[str, str]:
    """val, the rows to learn from, and, where there are any, test -> the splits of the data that they are.

    Errors: ValueError where there are none to learn from, or some that a model was trained on.
    """
    from mm.cli import _run

    source, counts = datamodule.table.source, _run.split_counts(datamodule)
    told = ", ".join(f"{name} {count}" for name, count in counts.items())
    if split == "all":
        if counts["train"]:
            raise ValueError(
                f"split=all: {source} names training rows ({told}), of which a model is surer than of others; leave "
                "split=all out, or give a file that the model never saw"
            )
        return {"val": "all"}
    if not counts["val"]:
        raise ValueError(
            f"{source}: has no validation rows ({told}); name some in its split column, set datamodule.split.val above "
            "0 as in training, or say split=all of a file that the model never saw"
        )
    return {"val": "val", "test": "test"} if counts["test"] else {"val": "val"}


def check_unseen(loaded: "LoadedModel", datamodule: Any, split: str) -> None:
    """Check that the model was not trained on the rows of a split.

    Raises:
        ValueError: If it was, as where rows have been added to a file whose splits are drawn anew; it names the first.
    """
    from mm.cli import _apply

    count, first = _apply.trained_on(loaded, datamodule, split)
    if count:
        fix = "has the file changed, so that its splits are drawn anew? Bring it back as it was, or name its column of "
        fix += "splits with datamodule.columns.split"
        if split == "all":
            fix = "leave them out of the file (pictures and sounds count by their relative path and size)"
        raise ValueError(
            f"{datamodule.table.source}: {count} of its {len(datamodule.rows(split))} rows of the split '{split}' were "
            f"trained on, the first: {first}; {fix}"
        )


def about(datamodule: Any, split: str) -> str:
    """Which rows these are."""
    source, drawn = datamodule.table.source, datamodule.split
    if split == "all":
        return f"rows of {source}, which the model must not have been trained on"
    return f"validation rows of {source} (drawn where it names none, with val={drawn.val:g}, seed={drawn.seed})"
