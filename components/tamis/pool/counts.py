"""Counts of a source's rows: read, kept, rejected and so on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


@dataclass
class Counts:
    """Rows read = kept + rejected + duplicates + left_out (by `where`) + not_drawn (by `limit` and `seed`)."""

    read: int = 0
    kept: int = 0
    rejected: int = 0
    duplicates: int = 0
    left_out: int = 0
    not_drawn: int = 0
    messages: int = 0
    characters: int = 0

    def add(self, other: Counts) -> None:
        """Add the counts of `other`."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def add_kept(self, table: pa.Table) -> None:
        """Count the rows of `table` (schema `POOL`) as kept."""
        turns = pc.list_flatten(table["messages"])
        self.kept += table.num_rows
        self.messages += len(turns)
        self.characters += pc.sum(pc.utf8_length(pc.struct_field(turns, "content"))).as_py() or 0

    def as_facts(self) -> dict[str, Any]:
        """The counts, and the means over the kept samples, for a manifest."""
        facts = {name: value for name, value in vars(self).items() if name not in ("messages", "characters")}
        kept = max(self.kept, 1)
        return facts | {
            "mean_turns": round(self.messages / kept, 3),
            "mean_characters": round(self.characters / kept, 1),
        }
