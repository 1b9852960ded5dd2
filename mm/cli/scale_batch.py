"""Find the largest batch that trains, of the longest rows, per length bucket where there are any."""

from pathlib import Path
from typing import TYPE_CHECKING

from mm.cli._app import launch, save_overrides, shown
from mm.messages import quote

if TYPE_CHECKING:
    from omegaconf import DictConfig

LIMITS = ("max_batch_size", "memory_limit_gib", "memory_headroom")


def main(argv: list[str]) -> None:
    launch("scale_batch", argv, job)


def job(cfg: "DictConfig", folder: Path) -> None:
    """Two steps of training for each size that is tried, in this process."""
    from omegaconf import OmegaConf

    from mm.cli import _named_keys, _run, _trainer
    from mm.profiling.batch_size import find_batch_size
    from mm.runs.results import write_metrics

    limits = {name: cfg[name] for name in LIMITS}
    shorten(cfg, limits)
    if unread := [named.by for named in _named_keys.named_keys() if named.key.split(".")[0] in ("logger", "callbacks")]:
        print(f"mm scale_batch logs nothing and calls no callbacks; not read: {', '.join(unread)}")
    run = _run.prepare(cfg)
    OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
    save_overrides(folder)
    found = find_batch_size(
        run.task, run.datamodule, lambda: _trainer.build_for_trial(cfg, run.task.model), **limits, report=print
    )
    write_metrics(folder, found.metrics, {})
    more = ", ".join(f"{name}: {most:g}" for name, most in found.budget.items())
    budget = f" {quote(f'datamodule.max_batch_length={{{more}}}')}" if more else ""
    print(f"type: datamodule.batch_size={found.batch_size}{budget}")
    print(shown(folder))


def shorten(cfg: "DictConfig", limits: dict[str, object]) -> None:
    """Make the run as short as a trial. Raises ValueError for settings that have no meaning here."""
    from omegaconf import open_dict

    from mm.profiling.batch_size import check_limits

    check_limits(**limits)
    if cfg.resume:
        raise ValueError("resume: a search begins anew; leave it out")
    length = {"max_epochs": 1, "max_steps": -1, "max_time": None, "limit_train_batches": 1.0, "limit_val_batches": 0}
    with open_dict(cfg):
        cfg.trainer.enable_progress_bar = False  # else Lightning adds one
        for key, value in (length | {"accumulate_grad_batches": 1}).items():  # of which the memory does not depend
            cfg.trainer[key] = value
