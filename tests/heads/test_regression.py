"""Units of the user outside, standardised inside; each loss by hand."""

import pytest
import torch
from heads.by_heart import learn, pooled

from mm.heads.regression import RegressionHead
from mm.predictions import Scalar
from mm.types import Features


def head(**kwargs):
    return RegressionHead(**({"embed_dim": 4, "mean": 100.0, "std": 20.0} | kwargs))


def test_prediction_is_in_the_user_s_units():
    part = head()
    torch.nn.init.zeros_(part.linear.weight)
    torch.nn.init.constant_(part.linear.bias, 0.5)
    pooled = torch.randn(2, 4)
    fused = Features(pooled[:, None], torch.ones(2, 1, dtype=torch.bool), pooled, torch.zeros(2, 1, 2))
    assert part(fused).value.tolist() == [110.0, 110.0]


@pytest.mark.parametrize(("criterion", "wanted"), [("mse", 0.25 + 4), ("mae", 0.5 + 2), ("huber", 0.125 + 1.5)])
def test_loss_of_the_standardised_error(criterion, wanted):
    prediction = torch.tensor([110.0, 60.0, 5.0], requires_grad=True)
    target = torch.tensor([100.0, 100.0, torch.nan])  # errors of 0.5 and 2 deviations, and one unlabelled
    total, count = head(criterion=criterion).loss(Scalar(prediction), target, None)
    assert total.item() == pytest.approx(wanted)
    assert count.item() == 2
    total.backward()
    assert prediction.grad.isfinite().all()
    assert prediction.grad[2] == 0


def test_what_cannot_be_learnt_is_refused():
    with pytest.raises(ValueError, match="got 'rmse', wanted one of huber, mse, mae"):
        head(criterion="rmse")
    for std in (0.0, float("nan")):
        with pytest.raises(ValueError, match="one single value"):
            head(std=std)


def test_score_decode_and_merge():
    values = Scalar(torch.tensor([1.0, 2.0, 6.0]))
    got, truth = values.metric_inputs(torch.tensor([1.5, torch.nan, 5.0]))
    assert (got.tolist(), truth.tolist()) == ([1.0, 6.0], [1.5, 5.0])
    assert head().decode(values, None, {})[2] == {"prediction": 6.0}
    assert values.merge(torch.tensor([0, 0, 1]), 2).value.tolist() == [1.5, 6.0]


def test_intervals_by_hand():
    prediction, target = Scalar(torch.tensor([110.0, 60.0, 5.0])), torch.tensor([100.0, 100.0, torch.nan])
    assert prediction.nonconformity(target, head().decoding).tolist() == [[10.0], [40.0]]
    rows, size = prediction.prediction_sets([12.5], head().decoding, {})
    assert [row["prediction_interval"] for row in rows] == [[97.5, 122.5], [47.5, 72.5], [-7.5, 17.5]]
    assert size.tolist() == [25.0] * 3


def test_it_learns_by_heart():
    torch.manual_seed(0)
    made, target = head(embed_dim=8, criterion="mse"), torch.tensor([70.0, 100.0, torch.nan, 131.5])
    prediction, _, total, count = learn(made, target, lambda: pooled(4), steps=300)
    assert total / count < 1e-4
    assert prediction.value[[0, 1, 3]].tolist() == pytest.approx([70.0, 100.0, 131.5], abs=0.5)


def test_large_values_keep_their_digits():
    torch.manual_seed(0)
    truth = [1_700_000_000.0 + i for i in (0, 1, 59)]
    made = head(embed_dim=8, mean=1_700_000_030.0, std=17.3, criterion="mse").to(torch.bfloat16).float()
    target = torch.tensor([*truth, torch.nan], dtype=torch.float64)
    prediction, fused, total, count = learn(made, target, lambda: pooled(4), steps=300)
    assert prediction.value.dtype == torch.float64
    assert total.dtype == torch.float32
    assert total / count < 1e-4
    assert prediction.value[:3].tolist() == pytest.approx(truth, abs=0.5)
    assert [row["prediction"] for row in made.decode(prediction, fused, {})] == prediction.value.tolist()
    value, known = prediction.metric_inputs(target)
    assert (value - known).abs().max() < 0.5
    assert known.tolist() == truth
    rows, _ = prediction.prediction_sets([0.25], made.decoding, {})
    assert rows[0]["prediction_interval"] == [prediction.value[0].item() - 0.25, prediction.value[0].item() + 0.25]
