"""The mixture against a loop over rows that really leaves absent inputs out."""

from itertools import product

import torch

from mm.contracts import random_features
from mm.fusion.mixture_of_experts import MixtureOfExpertsFusion

NAMES = ["text", "vision", "audio"]


def test_is_a_softmax_over_the_experts_of_what_is_present():
    torch.manual_seed(0)
    fusion = MixtureOfExpertsFusion(inputs=NAMES, embed_dim=6, hidden_dim=5).eval()
    subsets = torch.tensor(list(product([True, False], repeat=3)))[:-1]
    features = {n: random_features(len(subsets), 2, 6, subsets[:, i]) for i, n in enumerate(NAMES)}
    pooled = fusion(features).pooled
    for row, present in enumerate(subsets.tolist()):
        x = [features[name].pooled[row] for name in NAMES]
        logits = fusion.gate.weight @ torch.cat(x) + fusion.gate.bias
        there = [i for i in range(3) if present[i]]
        total = sum(logits[i].exp() for i in there)
        wanted = sum(logits[i].exp() / total * fusion.experts[i](x[i]) for i in there)
        torch.testing.assert_close(pooled[row], wanted)


def test_one_input_is_its_expert():
    fusion = MixtureOfExpertsFusion(inputs=["audio"], embed_dim=4)
    f = random_features(3, 2, 4)
    torch.testing.assert_close(fusion({"audio": f}).pooled, fusion.experts[0](f.pooled))
    assert fusion.gate is None
