"""Checks of the settings of corruptions."""

import math
from typing import Any


def check_range(of: object, low: float, high: float = math.inf, **values: Any) -> None:
    """Raise an error if a setting of a corruption is out of range.

    Args:
        of: The corruption, whose class name is used in the message.
        low: Smallest allowed value.
        high: Largest allowed value.
        values: The settings by name.

    Raises:
        ValueError: If a value is not a number in low..high.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            wanted = f"a number in {low:g}..{high:g}" if math.isfinite(high) else f"a number from {low:g}"
            raise ValueError(f"{type(of).__name__}: got {name}={value}, wanted {wanted}")
