"""The limits of the embedding: texts that were cut, and samples with equal vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tamis.reporting.blocks import Table
from tamis.reporting.numbers import count


def table(facts: Mapping[str, Any]) -> Table | None:
    """Texts that were cut, equal vectors, and common beginnings that were left out; None if there are none.

    Args:
        facts: the facts in the curation's manifest.
    """
    counts = facts.get("embedding", {})
    rows = [
        [label, count(counts[name])]
        for name, label in (
            ("texts_cut", "texts cut because they exceed the encoder's limit"),
            ("equal_vectors", "samples with the same vector as another sample"),
        )
        if counts.get(name)
    ]
    rows += [
        [f"samples whose common first {count(entry['tokens'])} tokens are left out", count(entry["samples"])]
        for entry in counts.get("beginnings_left_out", ())
    ]
    if not rows:
        return None
    note = (
        "Neighbours and diversity do not distinguish samples with equal vectors. Texts with reused vectors count as "
        "not cut."
    )
    return Table("Limits of the embedding", ["limit", "samples"], rows, note=note)
