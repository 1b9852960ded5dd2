"""Latents read tokens as a set, whatever their number; attention against torch's own."""

import torch
import torch.nn.functional as F
from torch import nn

from mm.contracts import random_features
from mm.fusion.perceiver import PerceiverFusion


def test_the_result_has_the_latents_as_tokens():
    fusion = PerceiverFusion(inputs=["text", "audio"], embed_dim=8, num_latents=5, num_heads=2, dropout=0.0)
    for steps in (1, 30):
        fused = fusion({"text": random_features(2, steps, 8), "audio": random_features(2, 3, 8)})
        assert fused.tokens.shape == (2, 5, 8)
        torch.testing.assert_close(fused.pooled, fused.tokens.mean(1))


def test_tokens_are_a_set_with_places():
    torch.manual_seed(0)
    fusion = PerceiverFusion(inputs=["text"], embed_dim=8, num_heads=2).eval()
    f = random_features(1, 4, 8)  # the first row has all of its tokens
    before = fusion({"text": f}).pooled
    order = torch.tensor([2, 0, 3, 1])
    shuffled = f._replace(tokens=f.tokens[:, order], position=f.position[:, order])
    torch.testing.assert_close(fusion({"text": shuffled}).pooled, before)
    moved = f._replace(tokens=f.tokens[:, order])
    assert not torch.allclose(fusion({"text": moved}).pooled, before)


def attend(block: nn.Module, x: torch.Tensor, context: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A block of mm.layers with torch's MultiheadAttention in it."""
    own = block.attention
    other = nn.MultiheadAttention(8, own.num_heads, batch_first=True)
    with torch.no_grad():
        other.in_proj_weight.copy_(torch.cat([own.query.weight, own.key_value.weight]))
        other.in_proj_bias.copy_(torch.cat([own.query.bias, own.key_value.bias]))
    other.out_proj = own.out
    x = x + other(block.norm1(x), context, context, key_padding_mask=~mask, need_weights=False)[0]
    return x + block.mlp(block.norm2(x))


def test_latents_read_all_inputs_and_then_each_other():
    torch.manual_seed(0)
    fusion = PerceiverFusion(inputs=["text", "audio"], embed_dim=8, num_latents=3, num_layers=1, num_heads=2).eval()
    features = {"text": random_features(3, 4, 8), "audio": random_features(3, 5, 8)}
    embedded = fusion.embedding(features)
    context = torch.cat([embedded["text"], embedded["audio"]], dim=1)
    context = F.layer_norm(context, (8,), fusion.context_norm.weight, fusion.context_norm.bias)
    mask = torch.cat([features["text"].mask, features["audio"].mask], dim=1)
    x = attend(fusion.cross_blocks[0], fusion.latents.expand(3, -1, -1), context, mask)
    y = fusion.blocks[0].norm1(x)
    x = attend(fusion.blocks[0], x, y, torch.ones(3, 3, dtype=torch.bool))
    torch.testing.assert_close(fusion(features).tokens, fusion.norm(x))
