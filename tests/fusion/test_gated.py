"""The gate against a loop over rows that really leaves absent inputs out."""

import torch

from mm.fusion.gated import GatedFusion, gate
from mm.types import Features


def test_gate_is_a_softmax_over_the_present_inputs():
    torch.manual_seed(0)
    values, logits = torch.randn(8, 3, 5), torch.randn(8, 3, 5)
    present = torch.tensor([[bool(i & 4), bool(i & 2), bool(i & 1)] for i in range(8)])
    got = gate(values, logits, present)
    assert torch.equal(got[0], torch.zeros(5))
    for row in range(1, 8):
        kept = present[row]
        wanted = (values[row, kept] * logits[row, kept].softmax(0)).sum(0)
        torch.testing.assert_close(got[row], wanted)


def test_one_input_passes_through_its_projection():
    fusion = GatedFusion(inputs=["audio"], embed_dim=4)
    x = torch.randn(2, 4)
    fused = fusion({"audio": Features(x.unsqueeze(1), torch.ones(2, 1, dtype=torch.bool), x, torch.zeros(2, 1, 2))})
    projection = fusion.projections[0]
    torch.testing.assert_close(fused.pooled, torch.tanh(x @ projection.weight.T + projection.bias))
