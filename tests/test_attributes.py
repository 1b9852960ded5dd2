"""Innocent attributes of a user's own parts: names that mean something elsewhere in mm mean nothing as data."""

import pytest
import torch
from torch import nn

import mm
from mm.checkpoint import build, save, try_save
from mm.configurable import RECORD, Configurable, to_config
from mm.contracts._demands import give_attributes
from mm.encoders.text.hashed_ngrams import TextHashedNgrams
from mm.fingerprints import Identified
from mm.fusion.sum import SumFusion
from mm.heads.classification import ClassificationHead
from mm.model import MultimodalModel
from mm.reports import HasFigure
from mm.targets.base import AlignedCodec
from mm.tasks.unimodal import fresh
from mm.types import DataSpec, InputData, TargetData, Towered

HERE = f"{__name__}."


class Bag(TextHashedNgrams):
    """An encoder whose attributes are its own affair."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        give_attributes(self)


class Sum(SumFusion):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        give_attributes(self)


class Head(ClassificationHead):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        give_attributes(self)


class Weighty(Configurable, nn.Module):
    """Begins with the weights of a file, and says how it is built without."""

    def __init__(self, pretrained):
        super().__init__()
        self.pretrained = pretrained

    def get_config(self):
        return super().get_config() | {"pretrained": None}


class Outer(Configurable, nn.Module):
    """A part of parts that lie deep in its arguments."""

    def __init__(self, towers):
        super().__init__()
        self.inner = towers["a"]["fusion"]


ARGUMENTS = {"embed_dim": 8, "ngram": 2, "num_hash_buckets": 50, "dropout": 0.0, "max_length": 16, "pool": "mean"}
CONFIG = {
    "_target_": "mm.model.MultimodalModel",
    "embed_dim": 8,
    "encoders": {
        "text": {
            "_target_": f"{HERE}Bag",
            "embed_dim": 8,
            "ngram": 2,
            "num_hash_buckets": 50,
            "dropout": 0.0,
            "max_length": 16,
            "pool": "mean",
        }
    },
    "fusion": {"_target_": f"{HERE}Sum", "inputs": ["text"]},
    "heads": {"target": {"_target_": f"{HERE}Head", "embed_dim": 8, "classes": ["a", "b"], "counts": [1, 1]}},
}


def parts() -> tuple:
    """What `save` writes, but for the path."""
    torch.manual_seed(0)
    transforms = {
        "text": {"_target_": "mm.transforms.text.tokens.TextTransform", "tokenizer": "bytes", "max_length": 16}
    }
    target = TargetData(kind="class", classes=("a", "b"), facts={"counts": [1, 1]})
    spec = DataSpec(inputs={"text": InputData(modality="text")}, targets={"target": target})
    readers = {"target": {"_target_": "mm.targets.classes.ClassTarget"}}
    return build(CONFIG, [__name__]), build(transforms), build(readers), spec, {"target": {}}, "# card"


def test_a_model_of_parts_with_any_attributes_is_saved_and_loaded(tmp_path):
    own = parts()
    try_save(tmp_path / "model", *own)
    assert not list(tmp_path.iterdir())
    save(tmp_path / "model", *own)
    loaded = mm.load(tmp_path / "model", allow=[__name__])
    assert loaded.predict({"text": "x"})["target"]["prediction"] in "ab"
    assert fresh(own[0].heads["target"]) is not own[0].heads["target"]


def test_attributes_that_are_no_methods_offer_nothing():
    part = nn.Linear(1, 1)
    give_attributes(part)
    for kind in (AlignedCodec, HasFigure, Identified, Towered):
        assert not isinstance(part, kind), kind


def test_nested_parts_are_built_without_the_weights_they_began_with():
    inner = Weighty("a.pt")
    model = MultimodalModel({"text": Bag(**ARGUMENTS)}, Outer({"a": {"inputs": ["text"], "fusion": inner}}), {}, 8)
    fusion = to_config(model)["fusion"]
    assert fusion["towers"]["a"]["fusion"] == {"_target_": f"{HERE}Weighty", "pretrained": None}
    assert inner.pretrained == "a.pt"


@pytest.mark.parametrize(
    ("value", "message"),
    [({1, 2}, "model: fusion: kind: got an object of set"), (nn.Linear(1, 1), "model: fusion: kind: got an object of")],
)
def test_arguments_that_can_not_be_written_are_errors_before_training(tmp_path, value, message):
    model, *rest = parts()
    model.fusion = Sum(inputs=["text"])
    vars(model.fusion)[RECORD][1]["kind"] = value
    with pytest.raises(ValueError, match=f"could not be written and loaded again: {message}"):
        try_save(tmp_path / "model", model, *rest)
    assert not list(tmp_path.iterdir())


def test_sources_of_weights_that_a_part_keeps_are_errors_before_training(tmp_path):
    model, *rest = parts()
    vars(model.encoders["text"])[RECORD][1]["pretrained"] = "a.pt"
    with pytest.raises(ValueError, match="could not be written and loaded again: .*names other weights"):
        try_save(tmp_path / "model", model, *rest)
    assert not list(tmp_path.iterdir())


def test_nothing_of_a_directory_is_lost_by_trying(tmp_path):
    own = parts()
    save(tmp_path / "model", *own)
    before = {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()}
    try_save(tmp_path / "model", *own)
    assert {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()} == before
    assert isinstance(own[0], MultimodalModel)
