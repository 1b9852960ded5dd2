"""Who attends to whom, and what stays of a row without its anchor."""

import pytest
import torch

from mm.fusion.cross_attention import CrossAttentionFusion
from mm.types import Features


def random(rows, steps, width=8):
    mask = torch.ones(rows, steps, dtype=torch.bool)
    return Features(torch.randn(rows, steps, width), mask, torch.randn(rows, width), torch.rand(rows, steps, 2))


def test_the_anchor_is_the_one_named_or_the_first():
    assert CrossAttentionFusion(inputs=["text", "audio"], embed_dim=8).anchor == "text"
    fusion = CrossAttentionFusion(inputs=["text", "audio"], embed_dim=8, anchor="audio")
    assert fusion({"text": random(2, 3), "audio": random(2, 5)}).tokens.shape == (2, 5, 8)


def test_an_anchor_that_is_no_input_is_refused():
    with pytest.raises(ValueError, match="got 'vision', wanted one of text, audio"):
        CrossAttentionFusion(inputs=["text", "audio"], embed_dim=8, anchor="vision")


def test_anchor_tokens_see_the_others_and_not_each_other():
    torch.manual_seed(0)
    fusion = CrossAttentionFusion(inputs=["text", "audio"], embed_dim=8, num_layers=2, num_heads=2).eval()
    text, audio = random(1, 3), random(1, 5)
    before = fusion({"text": text, "audio": audio}).tokens
    noise = torch.zeros_like(text.tokens)
    noise[:, 0] = torch.randn(8)
    alone = fusion({"text": text._replace(tokens=text.tokens + noise), "audio": audio}).tokens
    torch.testing.assert_close(alone[:, 1:], before[:, 1:])
    other = fusion({"text": text, "audio": random(1, 5)}).tokens
    assert ((other - before).abs().amax(-1) > 1e-5).all()


def test_a_row_without_its_anchor_still_tells_others_apart():
    torch.manual_seed(0)
    fusion = CrossAttentionFusion(inputs=["text", "audio"], embed_dim=8, num_heads=2).eval()
    text = random(2, 3)
    text = text._replace(mask=text.mask & False, pooled=text.pooled * 0)
    pooled = fusion({"text": text, "audio": random(2, 5)}).pooled
    assert (pooled[0] - pooled[1]).abs().max() > 1e-3
