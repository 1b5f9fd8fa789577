"""The measures by name. A new one is a file here, or in another package an entry point of "tamis.measures"."""

from __future__ import annotations

from typing import get_args

from tamis.core.registry import Registry
from tamis.scoring.measures.base import MeasureSettings

MEASURES: Registry[type[MeasureSettings]] = Registry(
    __name__,
    "MEASURE",
    "tamis.measures",
    MeasureSettings,
    name_of=lambda measure: get_args(measure.model_fields["kind"].annotation)[0],
    first="perplexity",  # the default
)
