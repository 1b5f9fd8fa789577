"""The headline: what the sections say in short."""

from __future__ import annotations

from collections.abc import Sequence

from tamis.reporting.blocks import Section


def counts(sections: Sequence[Section]) -> str:
    """One sentence of counts."""
    return f"{'; '.join(section.clause for section in sections if section.clause)}."


def findings(sections: Sequence[Section]) -> list[str]:
    """The sentences of the sections that found something, the last stage first: what came out of it all."""
    return [section.sentence for section in reversed(sections) if section.sentence]


def headline(sections: Sequence[Section]) -> str:
    """Counts and findings as plain text with plain spaces."""
    return " ".join([counts(sections), *findings(sections)]).replace("\N{NO-BREAK SPACE}", " ")
