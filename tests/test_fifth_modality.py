"""A modality of a stranger's own, in one file: it is read from a column, trained on, saved, loaded and asked."""

import importlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torchmetrics.classification import MulticlassAccuracy

from mm import checkpoint
from mm.configurable import configured, to_config
from mm.contracts import check_encoder
from mm.datamodules.manifest import Manifest
from mm.fusion.concat import ConcatFusion
from mm.heads.classification import ClassificationHead
from mm.modalities import base, get_modality, modality_names
from mm.model import MultimodalModel
from mm.targets.classes import ClassTarget
from mm.tasks.supervised import Supervised
from mm.types import DataSpec

SERIES = '''
"""A short series of numbers, such as `0.1 0.7 -0.2` in a cell."""

import torch
from torch import nn

from mm.configurable import Configurable
from mm.layers import masked_mean
from mm.modalities import Modality, register_modality
from mm.types import Features, InputData, InputSpec, EncodedInput


class Numbers(Configurable):
    """Read texts of numbers as tensors (T,)."""

    multiple = 1
    random = False

    def __init__(self, max_length: int = 16):
        self.max_length = max_length
        self.filler = torch.zeros(1)
        self.meta = {}

    def __call__(self, raw, train=False):
        values = torch.tensor([float(word) for word in raw.split()])
        return EncodedInput([values[: self.max_length]], cut=len(values) > self.max_length)

    def finish(self, x):
        return x

    def lengths(self, raw):
        return [0.0 if not x else float(len(x.split())) for x in raw]


class Series(Modality):
    """Numbers over time."""

    name = "series"

    def probe(self, raw, source, trained, column="", stats=None, root=None):
        return InputData(modality=self.name, channels=1)

    def transform(self, data, need=None, **settings):
        return Numbers(**settings)


class SeriesMLP(nn.Module, Configurable):
    """The mean of an MLP over each number."""

    def __init__(self, embed_dim: int):
        super().__init__()
        self.embed_dim = embed_dim
        self.input = InputSpec(modality="series")
        self.layers = nn.Sequential(nn.Linear(1, embed_dim), nn.ReLU(), nn.Linear(embed_dim, embed_dim))

    def forward(self, x, mask):
        tokens = self.layers(x.unsqueeze(-1)) * mask.unsqueeze(-1)
        time = (mask.cumsum(1) - 0.5) / mask.sum(1, keepdim=True).clamp(min=1) * mask
        return Features(tokens, mask, masked_mean(tokens, mask), torch.stack([time * 0, time], dim=-1))


register_modality(Series())
'''


@pytest.fixture
def series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that a stranger has written; what it registers is forgotten afterwards."""
    monkeypatch.setattr("mm.modalities._MODALITIES", dict(sys.modules["mm.modalities"]._MODALITIES))
    (tmp_path / "series_of_my_own.py").write_text(SERIES, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("series_of_my_own")
    sys.modules.pop("series_of_my_own")


@pytest.fixture
def rows() -> list[dict[str, str]]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for i in range(60):
        values = torch.randn(3 + i % 5, generator=generator) * 0.1 + (1 if i % 2 else -1)
        cell = "" if i == 7 else " ".join(f"{x:.3f}" for x in values.tolist())
        found.append({"series": cell, "text": "a word", "trend": "up" if i % 2 else "down"})
    return found


def save(path: Path, model: MultimodalModel, transforms: Mapping[str, Any], spec: DataSpec) -> None:
    """Write a model directory."""
    codecs = {"trend": ClassTarget()}
    write: Any = checkpoint.save
    if "model_config" not in inspect.signature(write).parameters:
        write(path, model, transforms, codecs, spec)
        return
    parts = {
        "encoders": {name: to_config(encoder) for name, encoder in model.encoders.items()},
        "fusion": to_config(model.fusion),
        "heads": {name: to_config(head) for name, head in model.heads.items()},
    }
    config = {"_target_": "mm.model.MultimodalModel", "embed_dim": 8, **parts}
    read = {name: to_config(transform) for name, transform in transforms.items()}
    write(path, model, config, transforms, read, {"trend": to_config(codecs["trend"])}, spec, None, {"trend": {}}, "")


def test_a_fifth_modality_is_one_file(series: Any, rows: list[dict[str, str]], tmp_path: Path) -> None:
    assert modality_names() == ("text", "vision", "audio", "tabular", "series")
    data = Manifest(rows, inputs={"text": "text", "series": "series"}, targets={"trend": "trend"}, batch_size=16,
                    num_workers=0, max_batch_length={"series": 64})  # fmt: skip
    assert list(data.spec.inputs) == ["text", "series"]  # as modalities are listed
    data = data.bind({"series": series.Numbers()})
    batch = next(iter(data.train_dataloader()))
    assert batch.inputs["series"].shape == batch.masks["series"].shape  # type: ignore[union-attr]
    torch.manual_seed(0)
    head = ClassificationHead(classes=["down", "up"], embed_dim=8)
    model = MultimodalModel(
        {"series": series.SeriesMLP(8)}, ConcatFusion(inputs=["series"], embed_dim=8), {"trend": head}, 8
    )
    metric = configured(MulticlassAccuracy, num_classes=2)
    task = Supervised(
        model,
        metrics={"trend": {"accuracy": metric}},
        scheduler=lambda progress, total: 1.0,
        optimizer=lambda p: torch.optim.Adam(p, 0.05),
    )
    trainer = Trainer(max_epochs=8, accelerator="cpu", logger=False, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1)  # fmt: skip
    trainer.fit(task, datamodule=data)
    trainer.test(task, datamodule=data, verbose=False)
    assert task.results["test/accuracy"] == 1.0
    spec = type(data.spec)(inputs={"series": data.spec.inputs["series"]}, targets=data.spec.targets)
    save(tmp_path / "model", model, data.transforms, spec)
    loaded = checkpoint.load(tmp_path / "model", allow=["series_of_my_own"])
    assert loaded.predict({"series": "0.9 1.1 1.0"})["trend"]["prediction"] == "up"
    assert loaded.predict({"series": "-1 -0.8"})["trend"]["prediction"] == "down"


def test_an_encoder_of_a_fifth_modality_is_checked(series: Any) -> None:
    failed = [(name, why) for name, why in check_encoder(series.SeriesMLP(8)) if why is not None]
    assert not failed
    assert get_modality("series").random_input(series.SeriesMLP(8).input)[0].shape[0] == base.ROWS


def test_what_is_no_modality_is_told() -> None:
    with pytest.raises(ValueError, match="modality: got 'visoin', wanted one of text, .*did you mean 'vision'"):
        get_modality("visoin")
