import pytest
import torch
from seqeval.metrics import f1_score, precision_score, recall_score
from sklearn.metrics import accuracy_score
from sklearn.metrics import f1_score as sklearn_f1

from mm.metrics.entities import Entities
from mm.types import IGNORE

CLASSES = ["O", "B-a", "I-a", "B-b", "I-b"]


def padded(rows):
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, IGNORE)


def test_as_seqeval_counts_them():
    generator = torch.Generator().manual_seed(0)
    truth = [torch.randint(5, (n,), generator=generator).tolist() for n in (7, 3, 12, 1)]
    told = [[t if torch.rand(1, generator=generator) < 0.7 else 1 for t in row] for row in truth]
    metric = Entities(CLASSES)
    metric.update(padded(told[:3]), padded(truth[:3]))
    metric.update(padded(told[3:]), padded(truth[3:]))
    found = metric.compute()
    named = [[[CLASSES[i] for i in row] for row in rows] for rows in (truth, told)]
    assert float(found["precision"]) == pytest.approx(precision_score(*named))
    assert float(found["recall"]) == pytest.approx(recall_score(*named))
    assert float(found["f1"]) == pytest.approx(f1_score(*named))
    assert float(found["f1_macro"]) == pytest.approx(f1_score(*named, average="macro"))
    right = [a == b for one, two in zip(truth, told) for a, b in zip(one, two)]
    assert float(found["token_accuracy"]) == pytest.approx(sum(right) / len(right))
    assert list(found) == list(dict.fromkeys(found))
    assert set(found) == set(metric.names())
    assert metric.figure().axes[0].get_yticklabels()[0].get_text().startswith("a (")


def test_no_entity_at_all():
    metric = Entities(CLASSES)
    metric.update(torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 3, dtype=torch.long))
    found = metric.compute()
    assert found["f1"] == 0
    assert found["token_accuracy"] == 1


def test_plain_tags_beside_scikit_learn():
    """Macro F1 over the tags that occur or are predicted, as scikit-learn's default labels."""
    classes = ["ADJ", "DET", "NOUN", "VERB", "X"]
    metric = Entities(classes, scheme="plain")
    generator = torch.Generator().manual_seed(0)
    told, truth = (torch.randint(0, 4, (6, 7), generator=generator) for _ in range(2))
    truth[torch.rand(6, 7, generator=generator) < 0.3] = IGNORE
    told[torch.rand(6, 7, generator=generator) < 0.1] = IGNORE  # of words that were not read
    metric.update(told[:4], truth[:4])
    metric.update(told[4:], truth[4:])
    found = {name: float(value) for name, value in metric.compute().items()}
    words = truth != IGNORE
    a, b = truth[words].numpy(), told[words].numpy()
    assert found["token_accuracy"] == pytest.approx(accuracy_score(a, b))
    assert found["f1_macro"] == pytest.approx(sklearn_f1(a, b, average="macro", labels=range(4)))
    for i, x in enumerate(sklearn_f1(a, b, average=None, labels=range(5), zero_division=0)):
        assert found[f"f1/{classes[i]}"] == pytest.approx(x)
    assert set(metric.names()) == set(found) and metric.names()[0] == "token_accuracy"
    assert len(metric.figure().axes[0].get_yticklabels()) == 5
