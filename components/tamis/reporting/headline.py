"""The headline: a summary of the sections."""

from __future__ import annotations

from collections.abc import Sequence

from tamis.reporting.blocks import Section


def counts(sections: Sequence[Section]) -> str:
    """One sentence of counts."""
    return f"{'; '.join(section.clause for section in sections if section.clause)}."


def findings(sections: Sequence[Section]) -> list[str]:
    """The sections' sentences: first those that human grades support, then the others, the last stage first."""
    ordered = sorted(reversed(sections), key=lambda section: not section.first)
    return [section.sentence for section in ordered if section.sentence]


def headline(sections: Sequence[Section]) -> str:
    """Counts and findings as plain text with plain spaces."""
    return " ".join([counts(sections), *findings(sections)]).replace("\N{NO-BREAK SPACE}", " ")
