"""ds2-raw: DS2 without curation: the order of `ds2` with the rater's own scores (paper: "DS2 w/o curation")."""

from __future__ import annotations

from tamis.selection.strategies.base import Strategy

STRATEGY = Strategy(
    "ds2-raw",
    order=("raw_scores", "diversity"),
    about="the rater's own score classes, highest first; most diverse first within a class",
)
