"""Towers beside the fusions that they are made of; nothing of one tower reaches the other's token."""

import pytest
import torch
from omegaconf import OmegaConf

from mm.assembly.finish import fill_inputs
from mm.contracts import check_fusion, random_features
from mm.fusion.concat import ConcatFusion
from mm.fusion.sum import SumFusion
from mm.fusion.towers import TowerFusion
from mm.types import Towered

NAMES = ["text", "vision", "audio"]


def build(combine: str = "mean") -> TowerFusion:
    torch.manual_seed(0)
    user = {"inputs": ["text", "audio"], "fusion": ConcatFusion(inputs=["text", "audio"], embed_dim=8)}
    return TowerFusion(
        inputs=NAMES, embed_dim=8, towers={"user": user, "item": {"inputs": ["vision"]}}, combine=combine
    )


@pytest.mark.parametrize("combine", ["mean", "sum", "product", "mlp"])
def test_contract(combine):
    failed = {check: message for check, message in check_fusion(build(combine), NAMES, 8) if message}
    assert not failed


def test_a_token_is_its_tower_s_own_fusion():
    towers = build("product").eval()
    assert isinstance(towers, Towered) and list(towers.towers) == ["user", "item"]
    assert not isinstance(SumFusion(inputs=NAMES), Towered)
    there = torch.tensor([True, True, False, False])
    features = {"text": random_features(4, 3, 8, there), "vision": random_features(4, 2, 8, there.roll(1))}
    features["audio"] = random_features(4, 3, 8, there & False)
    fused = towers(features)
    user = towers.towers["user"]({name: features[name] for name in ("text", "audio")}).pooled
    torch.testing.assert_close(fused.tokens, torch.stack([user, features["vision"].pooled], 1))
    assert fused.mask.tolist() == [[True, False], [True, True], [False, True], [False, False]]
    item = features["vision"].pooled
    torch.testing.assert_close(fused.pooled, torch.stack([user[0], user[1] * item[1], item[2], 0 * item[3]]))
    other = towers({**features, "vision": random_features(4, 2, 8)})
    torch.testing.assert_close(other.tokens[:, 0], fused.tokens[:, 0])
    assert (other.tokens[:, 1] != fused.tokens[:, 1]).any()


@pytest.mark.parametrize(
    ("towers", "said"),
    [
        ({"a": {"inputs": ["text", "vison", "audio"], "fusion": SumFusion(inputs=[])}}, "a.inputs: got 'vison'"),
        ({"a": {"inputs": ["text"]}, "b": {"inputs": ["vision"]}}, "the input 'audio' is in 0 of a, b, wanted one"),
        ({name: {"inputs": NAMES, "fusion": SumFusion(inputs=NAMES)} for name in "ab"}, "'text' is in 2 of a, b"),
        ({"a": {"inputs": NAMES}}, r"of several what fuses them, as in \+model/fusion@model.fusion.towers.a.fusion"),
        ({"a": {"inputs": []}}, r"got the inputs \[\] and fusion=None, wanted at least one"),
        ({"a": {"input": ["text"]}}, "towers.a.input: nothing reads it, wanted inputs and fusion"),
    ],
)
def test_what_is_no_tower(towers, said):
    with pytest.raises(ValueError, match=said):
        TowerFusion(inputs=NAMES, embed_dim=8, towers=towers)
    with pytest.raises(ValueError, match="combine: got 'min', wanted one of mean, sum, product, mlp"):
        build("min")


def test_a_nested_fusion_is_filled_with_the_inputs_of_its_tower():
    node = OmegaConf.create({"inputs": "???", "towers": {}})
    node.towers = {
        "user": {"inputs": ["text", "audio"], "fusion": {"inputs": "???", "inner": {"inputs": "???"}}},
        "item": {"inputs": ["vision"], "fusion": None},
    }
    fill_inputs(node, NAMES)
    assert node.inputs == NAMES
    assert node.towers.user.fusion == {"inputs": ["text", "audio"], "inner": {"inputs": ["text", "audio"]}}
