"""random: every sample is equally likely.

With one seed a larger subset holds the smaller ones, so that a curve over sizes changes one thing at a time.
"""

from __future__ import annotations

from tamis.selection.strategies.base import Strategy

STRATEGY = Strategy("random", about="seeded")
