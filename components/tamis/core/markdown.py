"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, words: Collection[str] = ()) -> str:
    """A table. Columns are right-aligned, for numbers, except the first and those whose names are in `words`."""
    sides = ["---" if i == 0 or name in words else "---:" for i, name in enumerate(header)]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in [header, sides, *rows]
    )
