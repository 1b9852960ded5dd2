"""Products of Gaussians: by hand, against densities on a grid, and drawn."""

import torch
from torch.distributions import Normal

from mm.contracts import random_features
from mm.fusion.product_of_experts import ProductOfExpertsFusion, product_of_gaussians


def test_by_hand():
    # Precisions 1 (prior), 1 and 2; means 0, 3 and 6: (1 * 3 + 2 * 6) / 4, variance 1 / 4.
    mean = torch.tensor([[3.0, 6.0]] * 4).unsqueeze(-1)
    log_variance = torch.tensor([[1.0, 0.5]] * 4).log().unsqueeze(-1)
    present = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    mean, variance = product_of_gaussians(mean, log_variance, present)
    torch.testing.assert_close(mean.squeeze(1), torch.tensor([3.75, 1.5, 4.0, 0.0]))
    torch.testing.assert_close(variance.squeeze(1), torch.tensor([1 / 4, 1 / 2, 1 / 3, 1.0]))


def test_against_the_densities_multiplied_on_a_grid():
    torch.manual_seed(0)
    mean, log_variance = torch.randn(3), torch.randn(3)
    grid = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    density = Normal(0.0, 1.0).log_prob(grid)
    for m, v in zip(mean.double(), log_variance.double()):
        density = density + Normal(m, (v / 2).exp()).log_prob(grid)
    weight = density.softmax(0)
    wanted = (weight * grid).sum()
    got, variance = product_of_gaussians(mean.view(1, 3, 1), log_variance.view(1, 3, 1), torch.ones(1, 3).bool())
    torch.testing.assert_close(got.item(), wanted.item(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(variance.item(), (weight * (grid - wanted) ** 2).sum().item(), rtol=1e-5, atol=1e-5)


def test_the_surer_input_decides():
    fusion = ProductOfExpertsFusion(inputs=["a", "b"], embed_dim=1).eval()
    with torch.no_grad():
        for expert, mean, log_variance in zip(fusion.experts, [2.0, -1.0], [-4.0, 4.0], strict=True):
            expert.weight.zero_()
            expert.bias.copy_(torch.tensor([mean, log_variance]))
    pooled = fusion({"a": random_features(1, 2, 1), "b": random_features(1, 2, 1)}).pooled.item()
    sure, unsure = torch.tensor([4.0, -4.0]).exp().tolist()
    assert abs(pooled - (2 * sure - unsure) / (1 + sure + unsure)) < 1e-5
    assert abs(pooled - 2) < 0.05


def test_draws_in_training_only_and_only_if_asked():
    torch.manual_seed(0)
    f = {"a": random_features(1, 2, 4)}
    plain, drawn = (ProductOfExpertsFusion(inputs=["a"], embed_dim=4, stochastic=sample) for sample in (False, True))
    drawn.load_state_dict(plain.state_dict())
    wanted = plain(f).pooled
    assert torch.equal(drawn.eval()(f).pooled, wanted)
    draws = torch.stack([drawn.train()(f).pooled for _ in range(4000)]).squeeze(1)
    said = plain.experts[0](f["a"].pooled)
    _, variance = product_of_gaussians(said[:, None, :4], said[:, None, 4:], torch.ones(1, 1).bool())
    torch.testing.assert_close(draws.mean(0), wanted[0], rtol=0, atol=0.05)
    torch.testing.assert_close(draws.var(0), variance[0], rtol=0.1, atol=0)


def test_no_log_variance_overflows():
    f = {"a": random_features(2, 2, 4)}
    fusion = ProductOfExpertsFusion(inputs=["a"], embed_dim=4)
    with torch.no_grad():
        fusion.experts[0].bias.fill_(-1000.0)
    assert fusion(f).pooled.isfinite().all()
