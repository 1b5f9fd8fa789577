"""Results as plain JSON values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def as_json(value: Any) -> Any:
    """Arrays as lists, numbers rounded to 10 significant digits, NaN and infinity as None."""
    if isinstance(value, np.ndarray):
        return as_json(value.tolist())
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, np.generic):
        return as_json(value.item())
    if isinstance(value, float):
        return float(f"{value:.10g}") if math.isfinite(value) else None
    return value
