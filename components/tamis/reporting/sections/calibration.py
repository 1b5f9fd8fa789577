"""The calibration of confidences, as a figure, in words and in numbers."""

from __future__ import annotations

from tamis.core.reliability import Reliability
from tamis.reporting.blocks import Figure, Section
from tamis.reporting.charts import reliability as diagram
from tamis.reporting.numbers import count, decimal, percent


def figure(name: str, found: Reliability, *, judge: str) -> Figure:
    """The reliability diagram; `judge` names what the scores were compared with."""
    said = "; ".join(
        f"confidence {percent(b.said, digits=0)}, right {percent(b.right, digits=0)} of {count(b.count)}"
        for b in found.bins
    )
    return Figure(
        name,
        f"Share of right scores by confidence, according to {judge}",
        f"Share of right scores against mean confidence as dots, with 95 % intervals: {said}.",
        diagram(found.bins, x="confidence, in % (above: samples)", y="right, in %"),
        height=310,
    )


def in_words(found: Reliability, *, judge: str) -> str:
    """Mean confidence, the share of right scores, and the expected calibration error."""
    if not found.shows:
        verdict = "chance can explain the difference"
    elif found.said > found.right:
        verdict = "the model is overconfident"
    else:
        verdict = "the model is underconfident"
    return (
        f"Calibration: of {count(found.count)} scores, {percent(found.said, digits=0)} should be right according to "
        f"their confidences, and {percent(found.right, digits=0)} are right according to {judge}: {verdict}. In bins "
        f"of similar confidence, the two shares differ by {decimal(100 * found.error, 1)} percentage points on average "
        f"(expected calibration error {decimal(found.error, 3)}). With perfect calibration, chance would give about "
        f"{decimal(100 * found.chance, 1)}."
    )


def measure(section: Section, subject: str, found: Reliability, *, judge: str) -> None:
    """The numbers behind both."""
    section.measured(subject, f"expected calibration error by {judge}", found.error, n=found.count)
    for b in found.bins:
        span = f"{decimal(b.start, 1)} to {decimal(b.end, 1)}"
        section.measured(subject, f"mean confidence {span} by {judge}", b.said, n=b.count)
        section.measured(
            subject, f"right at confidence {span} by {judge}", b.right, interval=(b.low, b.high), n=b.count
        )
