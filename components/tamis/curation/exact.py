"""The old location of `tamis.curation.curate`, kept for one release."""

from __future__ import annotations

import warnings
from typing import Any

from tamis.curation.model import curate as _curate
from tamis.curation.neighborhoods import Floats, Ints
from tamis.curation.result import Curated


def curate(scores: Ints, indices: Ints, distances: Floats, **options: Any) -> Curated:
    """`tamis.curation.curate` under its old name, with today's options."""
    warnings.warn("tamis.curation.exact.curate is now tamis.curation.curate", DeprecationWarning, stacklevel=2)
    return _curate(scores, indices, distances, **options)
