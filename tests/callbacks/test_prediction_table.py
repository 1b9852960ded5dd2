"""What the table of validation rows holds, without W&B's own side of it (see tests/cli/test_loggers.py)."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.plugins.precision import HalfPrecision, MixedPrecision, Precision
from torch import nn

from mm.batching import Sample, collate, finish
from mm.callbacks.prediction_table import PredictionTable, cell, probability
from mm.fusion.concat import ConcatFusion
from mm.heads.classification import ClassificationHead
from mm.heads.multilabel import MultilabelHead
from mm.heads.regression import RegressionHead
from mm.model import MultimodalModel
from mm.targets.classes import ClassTarget
from mm.targets.multilabel import MultilabelTarget
from mm.targets.regression import RegressionTarget
from mm.transforms.audio.waveform import AudioTransform
from mm.transforms.text.tokens import TextTransform
from mm.transforms.vision.pixels import ImageTransform
from mm.types import DataSpec, Features, InputData, TargetData


class Mean(nn.Module):
    """The mean of whatever comes, as one token."""

    embed_dim = 4

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 4)

    def forward(self, x, mask):
        assert not self.training
        pooled = self.linear(x.flatten(1).to(self.linear.weight.dtype).mean(1, keepdim=True)) * mask.any(
            1, keepdim=True
        )
        return Features(pooled.unsqueeze(1), mask.any(1, keepdim=True), pooled, pooled.new_zeros(len(x), 1, 2))


RAW = {
    "text": ["one", "a text of several windows", "", "four"],
    "vision": [np.full((2, 2, 3), v, np.uint8) for v in (0, 128, 255)] + [None],
    "audio": [np.full((3, 5), 51, np.uint8), None, np.zeros((3, 5), np.uint8), np.zeros((3, 5), np.uint8)],  # a picture
    "sound": [np.full(100, 0.25, np.float32), np.full(80, 2.0, np.float32), None, np.zeros(90, np.float32)],
}


@pytest.fixture
def trainer():
    spec = DataSpec(
        inputs={
            "text": InputData(modality="text"),
            "vision": InputData(modality="vision"),
            "audio": InputData(modality="vision"),
            "sound": InputData(modality="audio"),
        },
        targets={
            "kind": TargetData(kind="class", classes=("cat", "dog")),
            "traits": TargetData(kind="labels", classes=("small", "loud")),
            "age": TargetData(kind="number"),
        },
    )
    targets = {
        "kind": torch.tensor([1, 0, -100, 1]),
        "traits": torch.tensor([[1, 1], [0, 0], [0, 1], [-100, -100]]),
        "age": torch.tensor([1.5, torch.nan, 3, 4]),
    }
    transforms = {
        "text": TextTransform("bytes", max_length=8, overflow="window"),
        "vision": ImageTransform((2, 2), 3, mean=(0.4, 0.4, 0.4), std=(0.3, 0.3, 0.3)),
        "audio": ImageTransform((3, 5), 1),
        "sound": AudioTransform(8000),
    }

    def batch(rows):
        samples = []
        for row in rows:
            raw = {n: RAW[n][row] for n in transforms}
            reads = {n: transforms[n](x) if x is not None and len(x) else None for n, x in raw.items()}
            samples.append(Sample(reads, {name: values[row] for name, values in targets.items()}, row))
        return finish(collate(samples, transforms), transforms)

    readers = {"kind": ClassTarget(), "traits": MultilabelTarget(), "age": RegressionTarget()}

    def truth(name, row):
        return readers[name].decode(targets[name][row], spec.targets[name])

    datamodule = SimpleNamespace(
        inputs=RAW,
        ids=list("wxyz"),
        splits=np.array(["val", "val", "train", "val"]),
        spec=spec,
        transforms=transforms,
        batch=batch,
        truth=truth,
    )
    return SimpleNamespace(
        datamodule=datamodule,
        precision_plugin=Precision(),
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        loggers=[],
    )


@pytest.fixture
def task():
    torch.manual_seed(0)
    heads = {
        "kind": ClassificationHead(classes=["cat", "dog"], embed_dim=4),
        "traits": MultilabelHead(classes=["small", "loud"], embed_dim=4, threshold=0.0),
        "age": RegressionHead(embed_dim=4, mean=0.0, std=1.0),
    }
    fusion = ConcatFusion(inputs=list(RAW), embed_dim=4)
    return SimpleNamespace(model=MultimodalModel({name: Mean() for name in RAW}, fusion, heads, embed_dim=4))


def test_columns_hold_what_went_in_what_came_out_and_what_is_true(trainer, task):
    columns = PredictionTable().columns(trainer, task, [0, 1, 3])
    assert list(columns) == [
        *("id", "text", "vision", "audio", "sound"),
        *("kind/prediction", "kind/probability", "kind/truth"),
        *("traits/prediction", "traits/probability", "traits/truth"),
        *("age/prediction", "age/truth"),
    ]
    assert columns["id"] == ["w", "x", "z"]
    assert columns["text"] == ["one", "a text of several windows", "four"]  # whole, whatever its windows
    assert np.array(columns["vision"][1].image).tolist() == [[[128] * 3] * 2] * 2  # normalisation undone
    assert columns["vision"][2] is None
    assert np.array(columns["audio"][0].image).tolist() == [[51] * 5] * 3  # a picture under the name of a sound
    assert columns["audio"][1] is None
    assert columns["kind/truth"] == ["dog", "cat", "dog"]
    assert all(0.5 <= p <= 1 for p in columns["kind/probability"])
    assert columns["traits/prediction"] == ["small, loud"] * 3
    assert columns["traits/truth"] == ["small, loud", "", None]
    assert columns["age/truth"] == [1.5, None, 4.0]
    assert task.model.training  # as before


@pytest.mark.parametrize("precision", [HalfPrecision("bf16-true"), MixedPrecision("bf16-mixed", "cpu")])
def test_half_precision_sees_and_hears_the_same(trainer, task, precision):
    trainer.precision_plugin = precision
    precision.convert_module(task.model)
    columns = PredictionTable().columns(trainer, task, [0, 1])
    assert np.array(columns["vision"][1].image)[0, 0].tolist() == [128] * 3
    assert all(isinstance(value, float) for value in columns["age/prediction"])


def test_training_modes_are_put_back_one_by_one(trainer, task):
    task.model.heads.eval()  # frozen parts may stay in evaluation mode
    PredictionTable().columns(trainer, task, [0])
    assert task.model.encoders.training
    assert not task.model.heads.training


def test_sound_is_cut_to_its_length_and_to_what_a_file_can_hold(trainer, task, tmp_path):
    import soundfile

    columns = PredictionTable().columns(trainer, task, [0, 1])
    for sound, level, length in zip(columns["sound"], (0.25, 1.0), (100, 80), strict=True):
        data, rate = soundfile.read(sound._path)
        assert (rate, len(data)) == (8000, length)
        assert data == pytest.approx(level, abs=1e-3)


def test_nothing_is_asked_where_w_and_b_does_not_watch(trainer):
    PredictionTable().log_table(trainer, None)


def test_cells_are_readable():
    assert cell(None) is None
    assert cell(0.5) == 0.5
    assert cell(["a", "b"]) == "a, b"
    assert cell([{"label": "é", "box": (1, 2)}]) == '[{"label": "é", "box": [1, 2]}]'
    assert probability({"prediction": 2.0}) is None
    assert probability({"prediction": "a", "probability": {"a": 0.9, "b": 0.1}}) == 0.9
    assert probability({"prediction": ["a"], "probability": {"a": 0.9, "b": 0.1}}) == "a 0.90"
    assert probability({"prediction": "x", "probability": 0.25}) == 0.25


def test_no_rows_is_refused():
    with pytest.raises(ValueError, match=r"callbacks\.prediction_table\.rows: got 0"):
        PredictionTable(rows=0)
