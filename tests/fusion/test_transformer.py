"""Tokens of all inputs in their order, and a class token that is no token of the result."""

import torch

from mm.fusion.transformer import TransformerFusion
from mm.types import Features


def random(rows, steps, width):
    mask = torch.ones(rows, steps, dtype=torch.bool)
    return Features(torch.randn(rows, steps, width), mask, torch.randn(rows, width), torch.rand(rows, steps, 2))


def test_tokens_of_all_inputs_in_order():
    torch.manual_seed(0)
    fusion = TransformerFusion(inputs=["text", "vision"], embed_dim=8, num_layers=1, num_heads=2).eval()
    features = {"vision": random(2, 4, 8), "text": random(2, 3, 8)}
    fused = fusion(features)
    assert fused.tokens.shape == (2, 7, 8)
    assert torch.equal(fused.position, torch.cat([features["text"].position, features["vision"].position], dim=1))


def test_position_and_kind_of_a_token_matter():
    torch.manual_seed(0)
    fusion = TransformerFusion(inputs=["a", "b"], embed_dim=8, num_layers=1, num_heads=2).eval()
    a, b = random(1, 3, 8), random(1, 3, 8)
    pooled = fusion({"a": a, "b": b}).pooled
    assert (fusion({"a": b, "b": a}).pooled - pooled).abs().max() > 1e-5
    assert (fusion({"a": a._replace(position=a.position.flip(1)), "b": b}).pooled - pooled).abs().max() > 1e-5
    order = torch.tensor([2, 0, 1])  # attention itself knows no order: tokens with their positions may be shuffled
    shuffled = a._replace(tokens=a.tokens[:, order], position=a.position[:, order])
    torch.testing.assert_close(fusion({"a": shuffled, "b": b}).pooled, pooled)
