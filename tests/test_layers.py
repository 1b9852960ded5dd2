"""Attention, in every precision, is that of torch's own layer."""

import torch
from torch import nn

from mm.layers import Attention


def both(precision: torch.dtype | None) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Ours and torch's MultiheadAttention with the same weights, and the gradients of ours."""
    torch.manual_seed(0)
    ours, theirs = Attention(32, 4), nn.MultiheadAttention(32, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    x, context, mask = torch.randn(3, 5, 32), torch.randn(3, 7, 32), torch.ones(3, 7, dtype=torch.bool)
    mask[1, 2:] = False
    wanted = theirs(x, context, context, key_padding_mask=~mask)[0]
    with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
        got = ours(x, context, mask)
    got.float().square().sum().backward()
    return got, wanted, [p.grad for p in ours.parameters()]


def test_equals_torchs_layer():
    got, wanted, _ = both(None)
    torch.testing.assert_close(got, wanted)


def test_bfloat16_keeps_its_three_digits_and_learns():
    got, wanted, gradients = both(torch.bfloat16)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), wanted, atol=0.02, rtol=0.02)
    for gradient, exact in zip(gradients, both(None)[2], strict=True):
        assert (gradient - exact).norm() < 0.03 * exact.norm() + 1e-3
