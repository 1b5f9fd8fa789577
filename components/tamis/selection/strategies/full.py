"""full: every sample, the upper reference of every comparison. The order of its ranks is seeded."""

from __future__ import annotations

from tamis.selection.strategies.base import Strategy

STRATEGY = Strategy("full", about="everything", sized=False)
