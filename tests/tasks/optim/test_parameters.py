"""Regex rules on parameter names."""

import pytest
from torch import nn

from mm.tasks.optim.parameters import freeze, groups


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(3, 2)
        self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
        self.norm = nn.LayerNorm(2)

    def layer_order(self):
        order = [["embedding"], *([f"layers.{i}"] for i in range(len(self.layers)))]
        return [*order[:-1], [*order[-1], "norm"]]


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoders = nn.ModuleDict({"text": Encoder()})
        self.head = nn.Linear(2, 2)


def rate_of(model, found):
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: (g["lr"], g["weight_decay"]) for g in found for p in g["params"]}


def test_first_rule_wins_and_norms_do_not_decay():
    model = Model()
    rules = {r"^encoders\.text\.layers\.0": 0.5, r"^encoders": 0.1}
    rates = rate_of(model, groups(model, 1.0, 0.3, rules, [r"embedding"]))
    assert rates["encoders.text.layers.0.weight"] == (0.5, 0.3)
    assert rates["encoders.text.layers.0.bias"] == (0.5, 0.0)
    assert rates["encoders.text.norm.weight"] == (0.1, 0.0)
    assert rates["encoders.text.embedding.weight"] == (0.1, 0.0)
    assert rates["head.weight"] == (1.0, 0.3)
    assert len(rates) == len(list(model.parameters()))  # each once


def test_layer_decay_counts_from_the_last():
    model = Model()
    rates = rate_of(model, groups(model, 1.0, 0.0, {}, [], layer_decay=0.5))
    by_hand = {"embedding": 0.125, "layers.0": 0.25, "layers.1": 0.5, "layers.2": 1.0, "norm": 1.0}
    for part, rate in by_hand.items():
        assert rates[f"encoders.text.{part}.weight"][0] == rate
    assert rates["head.weight"][0] == 1.0


def test_an_encoder_without_an_order_is_refused():
    """Silence would train its last layers at the rate of its first."""
    model = Model()
    model.encoders["text"].layer_order = "conv"  # a user's own attribute
    wanted = r"task.layer_decay: the encoder 'text' \(Encoder\) does not state the order of its layers; a method"
    with pytest.raises(ValueError, match=wanted):
        groups(model, 1.0, 0.0, {}, [], layer_decay=0.5)
    model.encoders["text"].layer_order = lambda: [["embedding"], ["layers"]]
    with pytest.raises(ValueError, match="'text' leaves out its parameter 'norm.weight'"):
        groups(model, 1.0, 0.0, {}, [], layer_decay=0.5)
    model.encoders["text"].layer_order = lambda: "layers"
    with pytest.raises(ValueError, match=r"layer_order\(\) of the encoder 'text' gave 'layers', wanted lists"):
        groups(model, 1.0, 0.0, {}, [], layer_decay=0.5)
    model.encoders["text"].layer_order = lambda: [["embedding", "layers", "norm"]]
    with pytest.raises(ValueError, match=r"got 0.5, but no encoder has two layers that train"):
        groups(model, 1.0, 0.0, {}, [], layer_decay=0.5)
    assert groups(model, 1.0, 0.0, {}, [])  # nobody asks


def test_no_order_is_asked_of_a_frozen_encoder():
    model = Model()
    model.encoders["frozen"] = nn.Linear(2, 2).requires_grad_(False)
    assert len({g["lr"] for g in groups(model, 1.0, 0.0, {}, [], layer_decay=0.5)}) == 4


def test_frozen_parameters_are_left_out():
    model = Model()
    freeze(model, [r"embedding", r"layers\.[01]\."])
    assert not model.encoders["text"].embedding.weight.requires_grad
    assert set(rate_of(model, groups(model, 1.0, 0.0, {}, []))) == {
        "encoders.text.layers.2.weight",
        "encoders.text.layers.2.bias",
        "encoders.text.norm.weight",
        "encoders.text.norm.bias",
        "head.weight",
        "head.bias",
    }


def test_a_rule_that_finds_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"task.layer_decay: got -3, wanted a factor above 0"):
        groups(Model(), 1.0, 0.0, {}, [], layer_decay=-3)
    with pytest.raises(ValueError, match=r"task.lr_scale: got -1.0 for '.', wanted 0 or more"):
        groups(Model(), 1.0, 0.0, {".": -1.0}, [])
    with pytest.raises(ValueError, match=r"task.lr_scale: 'decoder' finds no parameter"):
        groups(Model(), 1.0, 0.0, {"decoder": 0.1}, [])
    with pytest.raises(ValueError, match=r"task.freeze: '\(' is no regular expression"):
        freeze(Model(), ["("])
    model = Model()
    freeze(model, ["."])
    with pytest.raises(ValueError, match="every parameter is frozen"):
        groups(model, 1.0, 0.0, {}, [])
