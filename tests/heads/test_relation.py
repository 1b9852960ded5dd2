import torch
from heads.by_heart import learn, pooled

from mm.heads.relation import RelationHead, relation
from mm.predictions import Categorical
from mm.types import IGNORE, Features


def test_a_class_tells_its_direction():
    assert relation("Cause-Effect(e2,e1)") == ("Cause-Effect", "e2", "e1")
    assert relation("Other") == ("Other", None, None)
    assert relation("is (much) more") == ("is (much) more", None, None)


def test_decode_says_from_what_to_what():
    head = RelationHead(classes=["A(e1,e2)", "Other"], embed_dim=4)
    fused = Features(torch.zeros(2, 1, 4), torch.ones(2, 1, dtype=torch.bool), torch.zeros(2, 4), torch.zeros(2, 1, 2))
    first, second = head.decode(Categorical(torch.tensor([[3.0, 0.0], [0.0, 3.0]])), fused, {})
    assert {key: first[key] for key in ("prediction", "relation", "from", "to")} == {
        "prediction": "A(e1,e2)",
        "relation": "A",
        "from": "e1",
        "to": "e2",
    }
    assert (second["relation"], second["from"]) == ("Other", None)
    assert list(first) == ["prediction", "relation", "from", "to", "probability"]


def test_it_learns_by_heart():
    torch.manual_seed(0)
    made = RelationHead(classes=["A(e1,e2)", "A(e2,e1)", "Other"], embed_dim=8)
    prediction, fused, total, count = learn(made, torch.tensor([1, 2, IGNORE, 0]), lambda: pooled(4), steps=200)
    assert total / count < 0.01
    told = made.decode(prediction, fused, {})
    assert [(told[row]["from"], told[row]["to"]) for row in (0, 1, 3)] == [("e2", "e1"), (None, None), ("e1", "e2")]
