"""The measures by name. To add one, put a file here, or use an entry point "tamis.measures" in another package."""

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
