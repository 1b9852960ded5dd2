"""What the numbers of a corruption may be."""

import math
from typing import Any


def check_range(of: object, low: float, high: float = math.inf, **values: Any) -> None:
    """Errors: ValueError where one is no number in low..high."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            wanted = f"a number in {low:g}..{high:g}" if math.isfinite(high) else f"a number from {low:g}"
            raise ValueError(f"{type(of).__name__}: got {name}={value}, wanted {wanted}")
