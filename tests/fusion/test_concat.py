"""The order of the inputs is the constructor's, not the dict's."""

import torch

from mm.fusion.concat import ConcatFusion
from mm.types import Features


def test_columns_follow_the_names():
    torch.manual_seed(0)
    fusion = ConcatFusion(inputs=["text", "audio"], embed_dim=4, hidden_dim=6).eval()
    one = torch.ones(3, 1, dtype=torch.bool)
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    features = {"audio": Features(y[:, None], one, y, torch.zeros(3, 1, 2))}
    features["text"] = Features(x[:, None], one, x, torch.zeros(3, 1, 2))
    first, last = fusion.mlp[0], fusion.mlp[3]
    hidden = torch.nn.functional.gelu(x @ first.weight[:, :4].T + y @ first.weight[:, 4:].T + first.bias)
    torch.testing.assert_close(fusion(features).pooled, hidden @ last.weight.T + last.bias)
