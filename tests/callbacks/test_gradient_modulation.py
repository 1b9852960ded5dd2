"""The coefficient is the paper's; only encoders that are ahead are slowed; the noise follows from seed and step."""

import math
import warnings

import pytest
import torch
from lightning import Callback
from tasks.test_supervised import Data, build_model, build_task, fit, make_batch

from mm.callbacks.gradient_modulation import GradientModulation, coefficients, modulate, true_score
from mm.encoders.vision.conv import VisionConv
from mm.fusion.concat import ConcatFusion
from mm.heads.regression import RegressionHead
from mm.model import MultimodalModel
from mm.types import IGNORE


@pytest.fixture(autouse=True)
def few_workers(recwarn):
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*number of training batches.*")
    warnings.filterwarnings("ignore", ".*lr_scheduler.step.*")


def test_two_encoders_by_the_papers_formula():
    """rho^a = sum of s^a / sum of s^v; k = 1 - tanh(alpha * rho) where rho > 1, else 1."""
    score, rows = torch.tensor([6.0, 4.0]), torch.tensor([8.0, 8.0])
    found = coefficients(score, rows, 0.4)
    assert found.tolist() == pytest.approx([1 - math.tanh(0.4 * 6 / 4), 1.0])


def test_three_encoders_are_each_compared_with_the_mean_of_the_others():
    score, rows = torch.tensor([8.0, 3.0, 1.0]), torch.tensor([10.0, 5.0, 10.0])  # means 0.8, 0.6, 0.1
    found = coefficients(score, rows, 0.3)
    by_hand = [1 - math.tanh(0.3 * 0.8 / 0.35), 1 - math.tanh(0.3 * 0.6 / 0.45), 1.0]
    assert found.tolist() == pytest.approx(by_hand)


def test_one_that_no_row_has_takes_no_part():
    found = coefficients(torch.tensor([6.0, 0.0, 4.0]), torch.tensor([8.0, 0.0, 8.0]), 0.4)
    assert found.tolist() == pytest.approx([1 - math.tanh(0.4 * 1.5), 1.0, 1.0])
    assert coefficients(torch.tensor([6.0, 0.0]), torch.tensor([8.0, 0.0]), 0.4).tolist() == [1.0, 1.0]


def test_score_of_the_true_class():
    probability = torch.tensor([[0.2, 0.8], [0.7, 0.3]])
    assert true_score(probability, torch.tensor([1, 1])).tolist() == pytest.approx([1.1, 2])


def test_noise_is_as_large_as_the_gradient_varies_and_its_mean_is_the_scaled_gradient():
    gradient = torch.randn(200, 500, generator=torch.Generator().manual_seed(0)) * 0.3 + 2
    noisy = gradient.clone()
    modulate(noisy, torch.tensor(0.5), torch.Generator().manual_seed(1))
    added = noisy - 0.5 * gradient
    assert added.mean().item() == pytest.approx(0, abs=0.01)
    assert added.std().item() == pytest.approx(0.3, rel=0.02)


def moved(callbacks, lr=0.5, seed=0, sizes=(12,), **options):
    """By how much each parameter moves in a step of plain gradient descent."""
    start = {name: p.clone() for name, p in build_model().named_parameters()}
    batch = make_batch(unlabelled=(0, 5))
    task = build_task(build_model(), lr=lr, unimodal_probes=True)
    task.seed = seed
    end = fit(task, Data(batch, sizes), callbacks=callbacks, **options)
    return {name: end[name] - start[name] for name in start}


@pytest.mark.parametrize("sizes", [(12,), (3, 9)])
def test_only_encoders_that_are_ahead_take_smaller_steps(sizes):
    options = {"sizes": sizes, "accumulate_grad_batches": len(sizes)}
    plain = moved([], **options)
    slowed = moved([GradientModulation(alpha=0.4, noise=False)], **options)
    batch = make_batch(unlabelled=(0, 5))
    fresh = build_task(build_model(), unimodal_probes=True)
    features = fresh.model.encode(batch.inputs, batch.masks)
    scores = []
    for name in ("left", "right"):
        rows = batch.masks[name][:, 0] & (batch.targets["digit"] != IGNORE)
        probability = fresh.unimodal[name]["digit"].linear(features[name].pooled[rows]).softmax(1)
        scores.append(float(probability[torch.arange(int(rows.sum())), batch.targets["digit"][rows]].mean()))
    ahead, behind = ("left", "right") if scores[0] > scores[1] else ("right", "left")
    factor = 1 - math.tanh(0.4 * max(scores) / min(scores))
    for name, step in plain.items():
        expected = step * factor if name.startswith(f"encoders.{ahead}.") else step
        torch.testing.assert_close(slowed[name], expected, msg=name)
    assert any(step.abs().max() > 1e-4 for name, step in plain.items() if name.startswith(f"encoders.{behind}."))


def test_noise_follows_from_seed_and_step():
    one, two, other = (moved([GradientModulation(alpha=0.4)], seed=seed) for seed in (0, 0, 1))
    plain = moved([GradientModulation(alpha=0.4, noise=False)])
    name = next(n for n, p in build_model().named_parameters() if n.startswith("encoders.left") and p.ndim > 1)
    assert all(torch.equal(one[n], two[n]) for n in one)
    assert not torch.allclose(one[name], other[name])
    assert not torch.allclose(one[name], plain[name])
    assert torch.equal(one["heads.digit.linear.weight"], plain["heads.digit.linear.weight"])


@pytest.mark.parametrize(("first", "last", "works"), [(0, None, True), (0, 0, True), (1, None, False)])
def test_works_from_epoch_to_epoch(first, last, works):
    plain = moved([])
    found = moved([GradientModulation(alpha=0.4, noise=False, from_epoch=first, to_epoch=last)])
    assert all(torch.equal(found[n], plain[n]) for n in plain) is not works
    assert not GradientModulation(to_epoch=2).at_work(3)


def test_an_optimizer_that_undoes_a_constant_factor_is_warned_of():
    task = build_task(build_model(), optimizer=torch.optim.AdamW, unimodal_probes=True)
    with pytest.warns(UserWarning, match="AdamW divides each gradient by its own size.*task/optimizer=sgd"):
        fit(task, Data(make_batch(), [12]), callbacks=[GradientModulation()])


def test_what_it_needs_is_told():
    data = Data(make_batch(), [12])
    with pytest.raises(ValueError, match="set task.unimodal_probes=true: the inputs with heads are none"):
        fit(build_task(build_model()), data, callbacks=[GradientModulation()])
    with pytest.raises(ValueError, match="the inputs with heads are left"):
        fit(build_task(build_model(), unimodal_loss_weight={"left": 1}), data, callbacks=[GradientModulation()])
    encoders = {"left": VisionConv(channels=1, widths=[4], depth=0, groups=2, pool="mean")}
    heads = {"size": RegressionHead(embed_dim=8, mean=0.0, std=1.0)}
    single = MultimodalModel(encoders, ConcatFusion(inputs=["left"], embed_dim=8), heads, embed_dim=8)
    with pytest.raises(ValueError, match="no head tells one"):
        fit(build_task(single, unimodal_probes=True), data, callbacks=[GradientModulation()])
    single.heads = torch.nn.ModuleDict({"digit": build_model().heads["digit"]})
    with pytest.raises(ValueError, match="there is one encoder"):
        fit(build_task(single, unimodal_probes=True), data, callbacks=[GradientModulation()])
    with pytest.raises(ValueError, match="gradient_modulation.alpha: got 0"):
        GradientModulation(alpha=0)


def test_every_step_counts_its_own_rows():
    modulation, rows = GradientModulation(noise=False), []

    class Count(Callback):
        def on_before_optimizer_step(self, trainer, task, optimizer):
            rows.append({name: int(seen[1]) for name, seen in modulation.seen.items()})

    batch = make_batch(unlabelled=(0, 5))  # whose rows 0, 3, 6 and 9 have no right image
    fit(build_task(build_model(), unimodal_probes=True), Data(batch, [5, 7]), callbacks=[Count(), modulation])
    assert rows == [{"left": 4, "right": 3}, {"left": 6, "right": 4}]
