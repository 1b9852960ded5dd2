"""Against the whole tensor, written out; and what a plain list of factors would do."""

import torch
from torch import nn

from mm.contracts import check_fusion, random_features
from mm.fusion.low_rank_tensor import LowRankTensorFusion, low_rank

NAMES = ["text", "vision", "audio"]


def test_is_the_contraction_with_the_whole_weight():
    torch.manual_seed(0)
    vectors = [torch.randn(5, 3, dtype=torch.float64) for _ in NAMES]
    factors = [torch.randn(2, 4, 6, dtype=torch.float64) for _ in NAMES]
    weight = torch.einsum("rao,rbo,rco->abco", *factors)  # (D + 1, D + 1, D + 1, E)
    x, y, z = (torch.cat([v, torch.ones(5, 1, dtype=torch.float64)], dim=1) for v in vectors)
    tensor = torch.einsum("na,nb,nc->nabc", x, y, z)
    torch.testing.assert_close(low_rank(vectors, factors), torch.einsum("nabc,abco->no", tensor, weight))


def test_of_an_absent_input_only_the_one_remains():
    torch.manual_seed(0)
    fusion = LowRankTensorFusion(inputs=["a", "b"], embed_dim=4, rank=3).eval()
    nn.init.normal_(fusion.factors[1])
    a, b = random_features(2, 3, 4), random_features(2, 3, 4, torch.tensor([False, False]))
    first = torch.einsum("bd,rde->bre", torch.cat([a.pooled, torch.ones(2, 1)], dim=1), fusion.factors[0])
    wanted = (first * fusion.factors[1][:, -1]).sum(1) + fusion.bias
    torch.testing.assert_close(fusion({"a": a, "b": b}).pooled, wanted)


def test_starts_around_zero_with_a_variance_that_the_inputs_number_bounds():
    torch.manual_seed(0)
    for n in (1, 2, 3):
        fusion = LowRankTensorFusion(inputs=NAMES[:n], embed_dim=64).eval()
        pooled = fusion({name: random_features(500, 2, 64) for name in NAMES[:n]}).pooled
        assert abs(pooled.mean()) < 0.2
        # Of a product of independent factors of mean one the second moment is the product of theirs.
        assert 0.7 < pooled.var() / ((1 + 1 / n) ** n - 1) < 1.4


class PlainList(LowRankTensorFusion):
    """The mistake of a published benchmark, which a library copied."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        factors = list(self.factors)
        del self.factors
        self.factors = factors


def test_factors_are_parameters_and_a_plain_list_of_them_is_found():
    names = [name for name, _ in LowRankTensorFusion(inputs=NAMES, embed_dim=8).named_parameters()]
    assert names == ["bias", "factors.0", "factors.1", "factors.2"]
    failed = [check for check, message in check_fusion(PlainList(inputs=NAMES, embed_dim=8), NAMES, 8) if message]
    assert failed == ["gradients"]
