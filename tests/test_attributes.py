"""Innocent attributes of a user's own parts: names that mean something elsewhere in mm mean nothing as data."""

import copy
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import mm
from mm.checkpoint import build, save, try_save, without_sources
from mm.contracts._demands import give_attributes
from mm.encoders.text.bag import TextBag
from mm.fusion.sum import SumFusion
from mm.heads.classification import ClassificationHead
from mm.model import MultimodalModel
from mm.tasks.unimodal import fresh
from mm.types import (
    Aligned,
    DataSpec,
    Drawn,
    Identified,
    InputData,
    Rebuilt,
    TargetData,
    Towered,
)

HERE = f"{__name__}."


class Bag(TextBag):
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


class Weighty(nn.Module, Rebuilt):
    """Begins with the weights of a file, and says how it is built without."""

    def __init__(self, pretrained):
        super().__init__()
        self.pretrained = pretrained
        self.architecture = {"pretrained": None}


CONFIG = {
    "_target_": "mm.model.MultimodalModel",
    "embed_dim": 8,
    "encoders": {
        "text": {
            "_target_": f"{HERE}Bag",
            "embed_dim": 8,
            "ngram": 2,
            "buckets": 50,
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
    transforms = {"text": {"_target_": "mm.transforms.text.tokens.Tokens", "tokenizer": "bytes", "max_length": 16}}
    target = TargetData(kind="class", classes=("a", "b"), facts={"counts": [1, 1]})
    spec = DataSpec(inputs={"text": InputData(modality="text")}, targets={"target": target})
    readers = {"target": {"_target_": "mm.transforms.target.classes.Classes"}}
    model = build(CONFIG, [__name__])
    return model, copy.deepcopy(CONFIG), build(transforms), transforms, readers, spec, {}, {"target": {}}, "# card"


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
    for kind in (Aligned, Drawn, Identified, Rebuilt, Towered):
        assert not isinstance(part, kind), kind


def test_parts_that_are_nested_forget_their_sources():
    node = {"_target_": f"{HERE}Weighty", "pretrained": "a.pt"}
    model = nn.Module()
    model.encoders = nn.ModuleDict({"text": Weighty("a.pt")})
    model.fusion = nn.Module()
    model.fusion.towers = nn.ModuleDict({"a": Weighty("a.pt"), "b": nn.Linear(1, 1)})
    model.fusion.blocks = nn.ModuleList([nn.Linear(1, 1), Weighty("a.pt")])
    config = {
        "encoders": {"text": dict(node), "other": dict(node)},
        "fusion": {
            "towers": {"a": {"inputs": ["text"], "fusion": dict(node)}, "b": {"_target_": "torch.nn.Linear"}},
            "blocks": [{"_target_": "torch.nn.Linear"}, dict(node)],
        },
    }
    found = without_sources(config, model)
    without = node | {"pretrained": None}
    assert found["encoders"] == {"text": without, "other": node}
    assert found["fusion"]["towers"]["a"]["fusion"] == without
    assert found["fusion"]["blocks"][1] == without
    assert config["encoders"]["text"] == node


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [("fusion", {1, 2}, "set is not JSON"), ("fusion", Path("x"), "is not JSON"), ("encoders", "a.pt", "names other")],
)
def test_what_can_not_be_written_is_found_before_training(tmp_path, part, value, message):
    own = list(parts())
    node = own[1]["fusion"] if part == "fusion" else own[1]["encoders"]["text"]
    node["pretrained" if part == "encoders" else "kind"] = value
    with pytest.raises(ValueError, match=f"could not be written and loaded again: .*{message}"):
        try_save(tmp_path / "model", *own)
    assert not list(tmp_path.iterdir())


def test_nothing_of_a_directory_is_lost_by_trying(tmp_path):
    own = parts()
    save(tmp_path / "model", *own)
    before = {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()}
    try_save(tmp_path / "model", *own)
    assert {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()} == before
    assert isinstance(own[0], MultimodalModel)
    assert "???" not in yaml.safe_dump(own[1])
