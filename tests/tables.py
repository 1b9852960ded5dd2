"""A datamodule over a table written on the spot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm.data.module import DataModule
from mm.datamodules.manifest import ManifestDataModule
from mm.transforms.audio.waveform import AudioTransform
from mm.transforms.text.tokens import TextTransform
from mm.transforms.vision.pixels import ImageTransform

SHARED: dict[str, Any] = {
    "batch_size": 8,
    "num_workers": 0,
    "on_error": "raise",
    "split": {"val": 0.2, "test": 0.2, "seed": 0},
    "seed": 0,
}
TRANSFORMS = {"text": TextTransform("bytes"), "vision": ImageTransform((4, 4), 3), "audio": AudioTransform(8000)}


def module(
    path: Path, data: str | None = None, /, kind: Callable[..., DataModule] = ManifestDataModule, **changed: Any
) -> DataModule:
    """Over `path`, which is written where `data` is given; roles of columns and settings are keywords."""
    if data is not None:
        path.write_text(data, encoding="utf-8", errors="surrogateescape", newline="")
    roles = ("text", "vision", "audio", "target", "targets", "id", "group")
    columns = dict.fromkeys((*roles, "inputs", "split")) | {k: changed.pop(k) for k in roles if k in changed}
    columns["split"] = changed.pop("split_column", None)
    columns["inputs"] = changed.pop("in_full", None)
    return kind(path=str(path), columns=columns, **SHARED | changed)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., DataModule]:
    """make("rows.csv", "a,b...", text="a", target="b", on_error="drop") -> a datamodule, with plain transforms"""

    def build(name: str, data: str | None = None, /, use: bool = True, **changed: Any) -> DataModule:
        built = module(tmp_path / name, data, **changed)
        if use:
            built.use({n: TRANSFORMS[built.table.spec.inputs[n].modality] for n in built.table.spec.inputs})
        return built

    return build


@pytest.fixture
def shared() -> dict[str, Any]:
    return SHARED


@pytest.fixture
def transforms() -> dict[str, Any]:
    return TRANSFORMS
