"""Whether confidences are true, as a figure, in words and in numbers."""

from __future__ import annotations

from tamis.core.reliability import Reliability
from tamis.reporting.blocks import Figure, Section
from tamis.reporting.charts import reliability as diagram
from tamis.reporting.numbers import count, decimal, percent


def figure(name: str, found: Reliability, *, judge: str) -> Figure:
    """The reliability diagram; `judge` says what the scores were held against."""
    said = "; ".join(
        f"said {percent(b.said, digits=0)}, right {percent(b.right, digits=0)} of {count(b.count)}" for b in found.bins
    )
    return Figure(
        name,
        f"Share right by {judge}, by confidence",
        f"Dots of the share right over mean confidence, with 95 % intervals: {said}.",
        diagram(found.bins, x="confidence, in % (above: samples)", y="right, in %"),
        height=310,
    )


def in_words(found: Reliability, *, judge: str) -> str:
    """Mean confidence beside the share right, and the expected calibration error."""
    if not found.shows:
        verdict = "no further apart than chance explains"
    elif found.said > found.right:
        verdict = "the model is too sure of its scores"
    else:
        verdict = "the model is less sure of its scores than it could be"
    return (
        f"Are the confidences true? Of {count(found.count)} scores, {percent(found.said, digits=0)} should be right by "
        f"the confidences and {percent(found.right, digits=0)} are by {judge}: {verdict}. In bins of like confidence, "
        f"what is said and what is right are {decimal(100 * found.error, 1)} points of 100 apart on average (expected "
        f"calibration error {decimal(found.error, 3)}); true confidences would give about "
        f"{decimal(100 * found.chance, 1)} by chance."
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
