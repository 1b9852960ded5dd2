"""InfoNCE against torch's cross-entropy; what is absent, alike or elsewhere."""

import pytest
import torch
import torch.nn.functional as F
from losses.reference import draw, parts

from mm.losses.info_nce import InfoNCE, info_nce

SCALE = torch.tensor([7.0], dtype=torch.float64)


def test_is_cross_entropy_both_ways_on_a_matrix_written_by_hand():
    left = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    right = torch.tensor([[0.8, 0.6], [0.0, 1.0], [1.0, 0.0]])
    batch = draw(3, width=2)._replace(vectors=torch.stack([left, right], 1))
    similarity = torch.tensor([[0.8, 0.0, 1.0], [0.6, 1.0, 0.0], [0.96, 0.8, 0.6]])  # left.right
    wanted = (F.cross_entropy(3 * similarity, torch.arange(3)) + F.cross_entropy(3 * similarity.T, torch.arange(3))) / 2
    total, count = info_nce(batch, batch, 0, (0, 1), torch.tensor([3.0]))
    assert count == 3
    torch.testing.assert_close(total / count, wanted)


def test_a_row_without_a_side_has_no_influence_at_all():
    batch = draw(20, inputs=3, absent=0.4)
    both = batch.present[:, 0] & batch.present[:, 2]
    total, count = info_nce(batch, batch, 0, (0, 2), SCALE)
    gradient = torch.autograd.grad(total, batch.vectors)[0]
    kept = batch._replace(vectors=batch.vectors[both], present=batch.present[both], row=batch.row[both])
    kept = kept._replace(label=batch.label[both], log_q=batch.log_q[both])
    wanted, rows = info_nce(kept, kept, 0, (0, 2), SCALE)
    assert 0 < rows < 20
    assert count == rows
    torch.testing.assert_close(total, wanted)
    torch.testing.assert_close(gradient[both], torch.autograd.grad(wanted, batch.vectors)[0][both])
    assert not gradient[~both].any()


def test_no_pair_at_all_is_nothing_with_a_gradient_of_nothing():
    batch = draw(4)
    batch.present[:2, 0] = batch.present[2:, 1] = False
    total, count = info_nce(batch, batch, 0, (0, 1), SCALE)
    assert (total.item(), float(count)) == (0, 0)
    assert not torch.autograd.grad(total, batch.vectors)[0].any()


@pytest.mark.parametrize("block", [1, 3, 4, 1024])
def test_blocks_and_processes_sum_to_the_whole(block):
    batch = draw(11, absent=0.2)
    wanted, rows = info_nce(batch, batch, 0, (0, 1), SCALE)
    gradient = torch.autograd.grad(wanted, batch.vectors)[0]
    found = [info_nce(mine, batch, start, (0, 1), SCALE, chunk_rows=block) for mine, start in parts(batch, 2, 7)]
    total = torch.stack([total for total, _ in found]).sum()
    assert sum(float(count) for _, count in found) == rows
    torch.testing.assert_close(total, wanted)
    torch.testing.assert_close(torch.autograd.grad(total, batch.vectors)[0], gradient)


def by_loop(batch, same_label):
    """Khosla's L_out where labels are positives."""
    similarity = SCALE * batch.vectors[:, 0] @ batch.vectors[:, 1].T
    total = 0.0
    for logits in (similarity, similarity.T):
        for i in range(len(logits)):
            alike = [j for j in range(len(logits)) if j != i and batch.label[i] == batch.label[j] >= 0]
            again = [j for j in range(len(logits)) if j != i and batch.row[i] == batch.row[j]]
            positives = [i, *(j for j in alike if j not in again)] if same_label == "positive" else [i]
            others = [j for j in range(len(logits)) if j != i and j not in alike and j not in again]
            below = torch.stack([logits[i, j].exp() for j in (*positives, *others)]).sum()
            total -= sum((logits[i, p].exp() / below).log() for p in positives) / len(positives) / 2
    return total


@pytest.mark.parametrize("same_label", ["exclude", "positive"])
def test_rows_of_one_label_are_left_out_or_positive_and_an_item_is_never_its_own_negative(same_label):
    batch = draw(8)
    batch = batch._replace(
        label=torch.tensor([0, 1, 0, -100, 1, -100, 0, 2]), row=torch.tensor([0, 1, 2, 3, 4, 3, 0, 7])
    )
    total, _ = info_nce(batch, batch, 0, (0, 1), SCALE, same_label)
    torch.testing.assert_close(total, by_loop(batch, same_label).squeeze())
    plain, _ = info_nce(draw(8), draw(8), 0, (0, 1), SCALE)
    assert abs((total - plain).item()) > 1e-3


def test_the_temperature_learns_and_stays_in_its_bounds():
    loss = InfoNCE(init_logit_scale=99.0, max_logit_scale=100.0)
    batch = draw(6, inputs=3)
    assert loss.groups(3) == [(0, 1), (0, 2), (1, 2)]
    found = loss(batch, batch, 0)
    assert list(found) == loss.groups(3)
    sum(total for total, _ in found.values()).backward()
    assert loss.temperature.log.grad.abs() > 0
    with torch.no_grad():
        loss.temperature.log += 3
    assert loss.temperature().item() == pytest.approx(100)
    assert loss.temperature.log.exp().item() == pytest.approx(100)  # the parameter: its next step is felt


@pytest.mark.parametrize(
    "wrong", [{"init_logit_scale": 0.5}, {"init_logit_scale": 200}, {"same_label_pairs": "drop"}, {"chunk_rows": 0}]
)
def test_values_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match="task.loss"):
        InfoNCE(**wrong)


def test_what_is_in_batches_often_is_corrected_for():
    """Yi 2019: of what is asked for, the logarithm of how often it is drawn is subtracted from every candidate."""
    batch = draw(6)
    log_q = torch.tensor([0.5, 0.2, 0.1, 0.1, 0.05, 0.05], dtype=torch.float64).log()
    batch = batch._replace(log_q=log_q)
    similarity = SCALE * batch.vectors[:, 0] @ batch.vectors[:, 1].T
    asked = F.cross_entropy(similarity - log_q, torch.arange(6), reduction="sum")
    back = F.cross_entropy(similarity.T, torch.arange(6), reduction="sum")
    for symmetric, wanted in ((False, asked), (True, (asked + back) / 2)):
        total, _ = info_nce(batch, batch, 0, (0, 1), SCALE, symmetric=symmetric, logq_correction=True, chunk_rows=4)
        torch.testing.assert_close(total, wanted)
    plain, _ = info_nce(batch, batch, 0, (0, 1), SCALE, symmetric=False)
    torch.testing.assert_close(plain, F.cross_entropy(similarity, torch.arange(6), reduction="sum"))
