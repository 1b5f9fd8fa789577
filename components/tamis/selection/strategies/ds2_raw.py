"""ds2-raw: DS2 without curation: the dual sort of `ds2` over the rater's own scores (paper: "DS2 w/o curation")."""

from __future__ import annotations

from tamis.selection.strategies.base import Strategy

STRATEGY = Strategy(
    "ds2-raw",
    order=("raw_scores", "diversity"),
    about="the rater's own score classes, highest first; most diverse first inside a class",
)
