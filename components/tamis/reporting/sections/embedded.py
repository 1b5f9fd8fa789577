"""What the embedding that neighbours rest on could not read, or tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tamis.reporting.blocks import Table
from tamis.reporting.numbers import count


def table(facts: Mapping[str, Any]) -> Table | None:
    """Texts that were cut, vectors that are equal, beginnings that were left out; None where there are none.

    Args:
        facts: of the curation's manifest.
    """
    told = facts.get("embedding", {})
    rows = [
        [label, count(told[name])]
        for name, label in (
            ("texts_cut", "texts longer than the encoder reads, and cut"),
            ("equal_vectors", "samples with the very vector of another one"),
        )
        if told.get(name)
    ]
    rows += [
        [f"samples whose same first {count(entry['tokens'])} tokens are left out", count(entry["samples"])]
        for entry in told.get("beginnings_left_out", ())
    ]
    if not rows:
        return None
    note = (
        "Neighbours and diversity cannot tell samples with equal vectors apart; texts of known vectors count as uncut."
    )
    return Table("What the embedding could not read", ["what", "samples"], rows, note=note)
