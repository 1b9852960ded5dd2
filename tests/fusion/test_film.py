"""Modulation by hand, the identity without others, and a row without its anchor."""

import pytest
import torch
import torch.nn.functional as F

from mm.contracts import random_features
from mm.fusion.film import FilmFusion, modulate

NONE = torch.tensor([False, False, False])


def test_modulation_by_hand():
    x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    got = modulate(x, torch.tensor([[0.5, -1.0]]), torch.tensor([[10.0, 20.0]]))
    assert got.tolist() == [[[11.5, 20.0], [14.5, 20.0]]]


def test_a_block_against_the_formula():
    torch.manual_seed(0)
    fusion = FilmFusion(inputs=["a", "b"], embed_dim=4, num_layers=1).eval()
    a, b = random_features(3, 2, 4), random_features(3, 5, 4)
    gamma, beta = F.linear(b.pooled, fusion.generators[0].weight, fusion.generators[0].bias).chunk(2, dim=1)
    block = fusion.blocks[0]
    hidden = F.linear(a.tokens, block.first.weight, block.first.bias)
    hidden = (hidden - hidden.mean(-1, keepdim=True)) / (hidden.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    hidden = F.gelu(hidden * (1 + gamma[:, None]) + beta[:, None])
    wanted = a.tokens + F.linear(hidden, block.last[2].weight, block.last[2].bias)
    torch.testing.assert_close(fusion({"a": a, "b": b}).tokens, wanted)


def test_absent_others_modulate_nothing():
    torch.manual_seed(0)
    fusion = FilmFusion(inputs=["a", "b", "c"], embed_dim=8, num_layers=2).eval()
    alone = FilmFusion(inputs=["a"], embed_dim=8, num_layers=2).eval()
    alone.blocks.load_state_dict(fusion.blocks.state_dict())
    a = random_features(3, 4, 8)
    got = fusion({"a": a, "b": random_features(3, 2, 8, NONE), "c": random_features(3, 2, 8, NONE)})
    torch.testing.assert_close(got, alone({"a": a}))


def test_a_row_without_its_anchor_tells_others_apart():
    torch.manual_seed(0)
    fusion = FilmFusion(inputs=["a", "b"], embed_dim=8, anchor="b").eval()
    pooled = fusion({"a": random_features(3, 4, 8), "b": random_features(3, 2, 8, NONE)}).pooled
    assert (pooled[0] - pooled[1]).abs().max() > 1e-3


def test_an_anchor_that_is_no_input_is_refused():
    with pytest.raises(ValueError, match="model.fusion.anchor: got 'vision', wanted one of text, audio"):
        FilmFusion(inputs=["text", "audio"], embed_dim=8, anchor="vision")
