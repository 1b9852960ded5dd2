"""Bilinear forms against torch's own and against a loop over pairs."""

from itertools import product

import torch
import torch.nn.functional as F

from mm.contracts import random_features
from mm.fusion.multiplicative import MultiplicativeFusion, bilinear

NAMES = ["text", "vision", "audio"]


def test_bilinear_by_hand_and_against_torch():
    weight = torch.tensor([[[1.0, 2.0], [0.0, -1.0]]])
    assert bilinear(torch.tensor([[3.0, 5.0]]), torch.tensor([[7.0, 11.0]]), weight).tolist() == [[21 + 66 - 55]]
    torch.manual_seed(0)
    x, y, weight = torch.randn(4, 3), torch.randn(4, 3), torch.randn(6, 3, 3)
    torch.testing.assert_close(bilinear(x, y, weight), F.bilinear(x, y, weight))


def test_only_pairs_of_which_both_are_there_add_something():
    torch.manual_seed(0)
    fusion = MultiplicativeFusion(inputs=NAMES, embed_dim=4, projection_dim=3).eval()
    subsets = torch.tensor(list(product([True, False], repeat=3)))[:-1]
    features = {n: random_features(len(subsets), 2, 4, subsets[:, i]) for i, n in enumerate(NAMES)}
    pooled = fusion(features).pooled
    linear = fusion.linear.weight.split(4, dim=1)
    for row, present in enumerate(subsets.tolist()):
        x = [features[name].pooled[row] for name in NAMES]
        wanted = fusion.linear.bias + sum(linear[i] @ x[i] for i in range(3) if present[i])
        for pair, (i, j) in enumerate([(0, 1), (0, 2), (1, 2)]):
            if present[i] and present[j]:
                left, right = fusion.projections[i](x[i]), fusion.projections[j](x[j])
                wanted = wanted + torch.stack([left @ w @ right for w in fusion.weights[pair]])
        torch.testing.assert_close(pooled[row], wanted)


def test_a_bilinear_form_starts_with_variance_near_one():
    torch.manual_seed(0)
    fusion = MultiplicativeFusion(inputs=["a", "b"], embed_dim=64, projection_dim=16)
    assert 0.8 < bilinear(torch.randn(200, 16), torch.randn(200, 16), fusion.weights[0]).var() < 1.25
