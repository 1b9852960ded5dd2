"""Download of model directories from Weights & Biases artifacts."""

from pathlib import Path, PurePath

from mm.extras import require


def fetch(path: str | Path) -> Path:
    """Return the path of a model directory, which is downloaded if it is a Weights & Biases artifact.

    Args:
        path: A path, or `wandb:entity/project/name:version`.

    Raises:
        ValueError: If the artifact can't be downloaded, or if it contains files that lie outside of its folder.
    """
    if not str(path).startswith("wandb:"):
        return Path(path)
    wandb = require("wandb", "wandb")
    refused = require("wandb.errors", "wandb").Error

    name = str(path).removeprefix("wandb:")
    try:
        artifact = wandb.run.use_artifact(name) if wandb.run else wandb.Api().artifact(name)
        for file, entry in artifact.manifest.entries.items():
            if entry.ref is not None or PurePath(file).is_absolute() or ".." in PurePath(file).parts:
                raise ValueError(f"it has {file!r:.80}, which lies outside of it")
        return Path(artifact.download())
    except (refused, ValueError) as error:
        raise ValueError(f"checkpoint={path}: {error}; wanted wandb:entity/project/name:version") from None
