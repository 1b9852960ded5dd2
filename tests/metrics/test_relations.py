import pytest
import torch
from sklearn.metrics import f1_score

from mm.metrics.relations import Relations

CLASSES = ["A(e1,e2)", "A(e2,e1)", "B(e1,e2)", "B(e2,e1)", "Other"]


def told(classes):
    return torch.nn.functional.one_hot(torch.tensor(classes), 5).float()


def test_by_hand():
    """A: told 4 times, true 3 times, once right, once the wrong way round. B: told once, true twice, once right."""
    truth = torch.tensor([0, 1, 0, 2, 3, 4, 4])
    metric = Relations(CLASSES)
    metric.update(told([0, 0, 4, 2, 1, 1, 4])[:3], truth[:3])
    metric.update(told([0, 0, 4, 2, 1, 1, 4])[3:], truth[3:])
    found = metric.compute()
    assert float(found["f1/A"]) == pytest.approx(2 * 1 / (4 + 3))
    assert float(found["f1/B"]) == pytest.approx(2 * 1 / (1 + 2))
    assert float(found["f1"]) == pytest.approx((2 / 7 + 2 / 3) / 2)
    assert float(found["precision"]) == pytest.approx((1 / 4 + 1) / 2)
    assert float(found["recall"]) == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert set(found) == set(metric.names())
    assert metric.figure().axes[0].get_yticklabels()[0].get_text() == "A (3)"


def test_without_directions_it_is_scikit_learn_s_macro():
    classes = ["a", "b", "c", "Other"]
    truth, said = torch.randint(4, (2, 200), generator=torch.Generator().manual_seed(0))
    metric = Relations(classes)
    metric.update(torch.nn.functional.one_hot(said, 4).float(), truth)
    assert float(metric.compute()["f1"]) == pytest.approx(f1_score(truth, said, labels=[0, 1, 2], average="macro"))


def test_no_relation_at_all():
    with pytest.raises(ValueError, match="other: got 'Other', which leaves no relation of Other"):
        Relations(["Other"])
