"""length: the longest responses, in characters of all assistant messages (Zhao et al., arXiv 2402.04833)."""

from __future__ import annotations

from tamis.selection.strategies.base import Strategy

STRATEGY = Strategy("length", order=("lengths",), about="characters in all assistant messages, longest first")
