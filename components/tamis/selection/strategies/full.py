"""full: every sample, as the reference for comparisons. The order of its ranks is seeded."""

from __future__ import annotations

from tamis.selection.strategies.base import Strategy

STRATEGY = Strategy("full", about="all samples", sized=False)
