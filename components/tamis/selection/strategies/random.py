"""random: every sample is equally likely.

With the same seed a larger subset contains the smaller ones, so that subsets of several sizes differ in size only.
"""

from __future__ import annotations

from tamis.selection.strategies.base import Strategy

STRATEGY = Strategy("random", about="random (seeded)")
