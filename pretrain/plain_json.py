"""JSON as its standard has it."""

import math
from typing import Any


def without_nan(value: Any) -> Any:
    """Numbers that are not finite, for which JSON has no word, as null, in lists and objects too."""
    if isinstance(value, dict):
        return {key: without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
