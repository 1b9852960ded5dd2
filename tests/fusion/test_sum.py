"""Sum, mean and maximum of what is present, in numbers worked by hand."""

import pytest
import torch

from mm.fusion.sum import SumFusion, reduce_present
from mm.types import Features

# A row per pattern of absence: both, the first, the second, none.
PRESENT = torch.tensor([[True, True], [True, False], [False, True], [False, False]])


@pytest.mark.parametrize(
    ("reduce", "wanted"),
    [
        ("sum", [[-4.0, 2.0], [-1.0, -2.0], [-3.0, 4.0], [0.0, 0.0]]),
        ("mean", [[-2.0, 1.0], [-1.0, -2.0], [-3.0, 4.0], [0.0, 0.0]]),
        ("max", [[-1.0, 4.0], [-1.0, -2.0], [-3.0, 4.0], [0.0, 0.0]]),  # an absent input's zero is no maximum
    ],
)
def test_by_hand(reduce, wanted):
    x, y = torch.tensor([-1.0, -2.0]), torch.tensor([-3.0, 4.0])
    pooled = {"a": x * PRESENT[:, :1], "b": y * PRESENT[:, 1:]}
    features = {
        n: Features(p[:, None], PRESENT[:, i : i + 1], p, p[:, None]) for i, (n, p) in enumerate(pooled.items())
    }
    fused = SumFusion(inputs=["a", "b"], reduce=reduce)(features)
    assert fused.pooled.tolist() == wanted
    assert fused.mask.squeeze(1).tolist() == [True, True, True, False]


def test_an_anchor_keeps_its_tokens_and_the_others_are_added():
    torch.manual_seed(0)
    text, mask = torch.randn(4, 3, 2), torch.tensor([[True, True, False]]) & PRESENT[:, :1]
    other = torch.randn(4, 2) * PRESENT[:, 1:]
    features = {
        "a": Features(text, mask, torch.randn(4, 2) * PRESENT[:, :1], torch.rand(4, 3, 2)),
        "b": Features(other[:, None], PRESENT[:, 1:], other, torch.rand(4, 1, 2)),
    }
    fused = SumFusion(inputs=["a", "b"], anchor="a")(features)
    torch.testing.assert_close(fused.tokens[:2], (text + other[:, None])[:2])
    assert torch.equal(fused.mask, mask)
    assert torch.equal(fused.position, features["a"].position)
    alone = SumFusion(inputs=["a"], anchor="a")({"a": features["a"]})
    assert torch.equal(alone.tokens[:2], text[:2])
    with pytest.raises(ValueError, match="model.fusion.anchor: got 'c', wanted one of a, b"):
        SumFusion(inputs=["a", "b"], anchor="c")


def test_has_no_parameters():
    assert not list(SumFusion(inputs=["a", "b", "c"]).parameters())


def test_the_gradient_of_a_mean_is_shared_by_the_present():
    values = torch.zeros(4, 2, 3, requires_grad=True)
    reduce_present(values, PRESENT, "mean").sum().backward()
    assert values.grad[:, :, 0].tolist() == [[0.5, 0.5], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]


def test_another_reduction_is_refused():
    with pytest.raises(ValueError, match=r"model.fusion.reduce: got 'median', wanted one of sum, mean, max"):
        SumFusion(inputs=["a"], reduce="median")
