"""What two marked parts of a text have to do with each other."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mm.heads._classifying import PooledClassifier
from mm.predictions import Categorical
from mm.types import Features


def relation(name: str) -> tuple[str, str | None, str | None]:
    """Cause-Effect(e2,e1) -> Cause-Effect, e2, e1; a class without a direction names no entity."""
    found = re.fullmatch(r"(.+)\(([^(),]+),([^(),]+)\)", name)
    return (found[1], found[2].strip(), found[3].strip()) if found else (name, None, None)


class RelationHead(PooledClassifier):
    """Which relation two entities have: of the pooled vector, which an encoder's pool=markers reads off at their marks.

    classes: such as Cause-Effect(e1,e2), which holds from e1 to e2, or Other. The arguments are PooledClassifier's.
    """

    def decode(self, prediction: Categorical, fused: Features, meta: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """(B, C) -> {"prediction": class, "relation", "from", "to", "probability": {class: 0..1}} per row"""
        rows = []
        for row in super().decode(prediction, fused, meta):
            kind, first, second = relation(row["prediction"])
            named = {"prediction": row["prediction"], "relation": kind, "from": first, "to": second}
            rows.append(named | {"probability": row["probability"]})
        return rows
