"""Head for the relation between two marked entities of a text."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mm.heads._classifying import PooledClassifier
from mm.predictions import Categorical
from mm.types import Features


def relation(name: str) -> tuple[str, str | None, str | None]:
    """Split the name of a relation class into the relation and its two entities.

    The class Cause-Effect(e2,e1) becomes Cause-Effect, e2 and e1. A class without a direction, such as Other, has None
    as its entities.
    """
    found = re.fullmatch(r"(.+)\(([^(),]+),([^(),]+)\)", name)
    return (found[1], found[2].strip(), found[3].strip()) if found else (name, None, None)


class RelationHead(PooledClassifier):
    """Classify the relation between two entities that are marked in a text.

    The head reads the pooled vector. With `pool=markers`, the encoder computes this vector from the tokens that mark
    the entities. For the other arguments, see `PooledClassifier`.

    Args:
        classes: Names of the classes, such as Cause-Effect(e1,e2), the relation from e1 to e2, or Other.
    """

    def decode(self, prediction: Categorical, fused: Features, meta: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Convert the class logits (B, C) into one dictionary per row.

        Its keys are `prediction`, the predicted class; `relation`, `from` and `to`, the relation and the two entities
        that are parts of the name of this class; and `probability`, which maps each class to its probability.
        """
        rows = []
        for row in super().decode(prediction, fused, meta):
            kind, first, second = relation(row["prediction"])
            named = {"prediction": row["prediction"], "relation": kind, "from": first, "to": second}
            rows.append(named | {"probability": row["probability"]})
        return rows
