"""Train a model, test it, and leave it as a model directory."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm.cli._app import launch, parse, shown, typed_words
from mm.messages import command, is_first_process
from mm.runs.folder import read_overrides

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(argv: list[str]) -> None:
    launch("train", argv, job)


def job(cfg: "DictConfig", folder: Path) -> float | None:
    """Compose -> data -> finished config -> model -> train -> test -> model directory."""
    from mm.cli import _run

    if finished(cfg, folder):
        return None
    run = _run.prepare(cfg)
    trainer = _run.fit(cfg, run, folder)
    return _run.conclude(cfg, run, trainer, folder)


def finished(cfg: "DictConfig", folder: Path) -> bool:
    """Whether there is nothing left to do; says so."""
    if not cfg.resume or not (folder / "metrics.json").exists() or not (folder / "model").is_dir():
        return False
    from mm.assembly.construct import read_resolved

    stored = read_resolved(folder / "config.yaml")
    if any(stored["trainer"][key] != cfg.trainer[key] for key in ("max_epochs", "max_steps", "max_time")):
        return False  # asked to train longer
    if changed := changes(stored, folder):
        raise ValueError(
            f"{', '.join(changed)}: the run in {shown(folder)} is finished, and this would change nothing of it; raise "
            "trainer.max_epochs (or max_steps) to go on, or start another run=NAME"
        )
    if is_first_process():
        model = shown(folder / "model")
        print("this run is finished; raise trainer.max_epochs to go on, or evaluate it:")
        print(f"  {command('mm', 'evaluate', f'checkpoint={model}')} datamodule=...")
        print(shown(folder))
    return True


def changes(stored: dict[str, Any], folder: Path) -> list[str]:
    """Words of this command that ask for another run than the one in the folder.

    Args:
        stored: The config of that run, as plain data.
        folder: Its folder.
    """
    from omegaconf import OmegaConf

    from mm.assembly.construct import escape

    config = OmegaConf.create(escape(stored))
    before, found = read_overrides(folder), []
    for word in typed_words():
        key, value = parse(word)
        if word in before or key in ("resume", "run", "paths.outputs"):
            continue
        node = OmegaConf.select(config, key, throw_on_missing=False) if key and not word.startswith("~") else None
        plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        if node is None or plain != value:
            found.append(word)
    return found
