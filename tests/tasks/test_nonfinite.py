import os

import pytest
import torch
from tasks.test_supervised import Data, build_model, build_task, fit, make_batch

from mm.tasks.nonfinite import NonFinite, first_nonfinite, unpack

pytestmark = pytest.mark.filterwarnings("ignore:.training_step. returned .None.")


def data(sizes, bad=()):
    batch = make_batch(sum(sizes))
    batch.inputs["left"][list(bad)] = torch.inf
    module = Data(batch, sizes)
    module.ids = [f"id{row}" for row in range(sum(sizes))]
    return module


def test_raise_names_rows_and_module_and_keeps_the_batch(tmp_path):
    task = build_task(build_model(), nonfinite=NonFinite("raise", str(tmp_path / "outputs/run/nonfinite"), 3))
    before = {n: x.clone() for n, x in task.model.state_dict().items()}
    with pytest.raises(ValueError, match="the loss of step 0 is not finite") as caught:
        fit(task, data([4, 4], bad=[1]))
    said = str(caught.value)
    assert "rows of its batch: id0, id1, id2, id3;" in said
    assert "first in model.encoders.left.blocks.0.0 (Conv2d)" in said
    assert f"mm diagnose run={os.path.relpath(tmp_path)}/outputs/run" in said
    kept = torch.load(tmp_path / "outputs/run/nonfinite/step-000000000.pt", weights_only=True)
    assert unpack(kept["batch"]).row.tolist() == [0, 1, 2, 3]
    assert unpack(kept["batch"]).inputs["left"][1].isinf().all()
    assert all(torch.equal(x, before[n]) for n, x in kept["weights"].items())
    assert all(torch.equal(x, before[n]) for n, x in task.model.state_dict().items())


def test_skip_trains_as_if_the_batch_were_not_there(tmp_path):
    torch.manual_seed(0)
    task = build_task(build_model(), nonfinite=NonFinite("skip", str(tmp_path / "nonfinite"), 3))
    with pytest.warns(UserWarning, match=r"the loss of step 1 .* id4"):
        skipped = fit(task, data([4, 4, 4], bad=[6]))
    assert task.nonfinite.skipped == 1
    clean = data([4, 4, 4])
    del clean.batches[1]
    without = fit(build_task(build_model()), clean)
    for name, weight in without.items():
        torch.testing.assert_close(skipped[name], weight)


def test_a_gradient_that_is_not_finite_changes_no_weight(tmp_path):
    task = build_task(build_model(), nonfinite=NonFinite("skip", str(tmp_path / "nonfinite"), 3))
    before = {n: p.detach().clone() for n, p in task.model.named_parameters()}
    next(task.model.heads["digit"].parameters()).register_hook(lambda gradient: gradient * torch.inf)
    with pytest.warns(UserWarning, match=r"the gradient of step 0 .* every module's output is finite"):
        after = fit(task, data([4]))
    assert all(torch.equal(after[n], x) for n, x in before.items())


@pytest.mark.parametrize(("which", "rows"), [(0, [0, 1, 2]), (1, [3, 4, 5]), (2, [6, 7, 8])])
def test_the_micro_batch_is_named_whose_gradient_it_was(tmp_path, which, rows):
    task = build_task(build_model(), nonfinite=NonFinite("raise", str(tmp_path / "nonfinite"), 3))
    counts = iter([torch.inf if number == which else 1 for number in range(4)])
    next(task.model.heads["digit"].parameters()).register_hook(lambda gradient: gradient * next(counts))
    with pytest.raises(
        ValueError, match=r"the gradient of step 0 .* rows of its batch: " + ", ".join(f"id{row}" for row in rows)
    ):
        fit(task, data([3, 3, 3]), accumulate_grad_batches=3)
    kept = torch.load(tmp_path / "nonfinite/step-000000000.pt", weights_only=True)
    assert unpack(kept["batch"]).row.tolist() == rows


def test_batch_norm_forgets_a_skipped_batch(tmp_path):
    model = build_model()
    model.encoders["left"].blocks.append(torch.nn.BatchNorm2d(4))
    task = build_task(model, nonfinite=NonFinite("skip", str(tmp_path / "nonfinite"), 3))
    with pytest.warns(UserWarning, match="the loss of step 0"):
        fit(task, data([4], bad=[0]))
    assert all(b.isfinite().all() for b in model.buffers())
    assert model.encoders["left"].blocks[-1].num_batches_tracked == 0


def test_broken_weights_are_named():
    model = build_model()
    with torch.no_grad():
        model.projections["right"].bias[0] = torch.nan
    batch = make_batch(4)
    place = first_nonfinite(model, lambda: model(batch.inputs, batch.masks))
    assert place == "model.projections.right (Linear), whose bias is not finite"


def test_wrong_policy():
    with pytest.raises(ValueError, match=r"task.nonfinite.policy: got 'ignore', wanted one of raise, skip"):
        NonFinite("ignore", "x", 3)
