"""What the head says of the fused vector against classifiers of single inputs, averaged by a loop."""

from itertools import product

import torch

from mm.contracts import random_features
from mm.fusion.late import LateFusion
from mm.heads.classification import ClassificationHead

NAMES = ["text", "vision", "audio"]


def test_is_the_weighted_mean_of_the_logits_of_each_input():
    torch.manual_seed(0)
    fusion = LateFusion(inputs=NAMES, embed_dim=8, hidden_dim=5).eval()
    temperature, weight = torch.tensor([0.5, 1.0, 4.0]), torch.tensor([0.7, -0.2, 1.3])
    fusion.log_temperature.data, fusion.weight.data = temperature.log(), weight
    head = ClassificationHead(classes=["a", "b"], embed_dim=8).eval()
    subsets = torch.tensor(list(product([True, False], repeat=3)))[:-1]
    features = {n: random_features(len(subsets), 2, 8, subsets[:, i]) for i, n in enumerate(NAMES)}
    fused = fusion(features)
    logits, of_tokens = head(fused).logits, head.linear(fused.tokens)
    for row, present in enumerate(subsets.tolist()):
        there = [i for i in range(3) if present[i]]
        total = sum(weight[i].exp() for i in there)
        mean = torch.zeros(2)
        for i in there:
            f = fusion.networks[i](features[NAMES[i]].pooled[row])
            own = head.linear.weight @ f / temperature[i] + head.linear.bias  # the logits of this input alone
            torch.testing.assert_close(of_tokens[row, i], own)
            mean += weight[i].exp() / total * own
        torch.testing.assert_close(logits[row], mean)


def test_a_token_per_input_that_is_there():
    subsets = torch.tensor([[True, False, True], [False, False, False]])
    features = {n: random_features(2, 4, 8, subsets[:, i]) for i, n in enumerate(NAMES)}
    assert torch.equal(LateFusion(inputs=NAMES, embed_dim=8)(features).mask, subsets)


def test_a_temperature_stays_positive_and_starts_at_one():
    fusion = LateFusion(inputs=NAMES, embed_dim=4)
    assert torch.equal(fusion.log_temperature.exp(), torch.ones(3))
    with torch.no_grad():
        fusion.log_temperature -= 3
    assert (fusion.log_temperature.exp() > 0).all()
