"""Numbers as text for readers. A missing number is a dash, never a zero."""

from __future__ import annotations

import math
import re
from numbers import Real

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SPACE = "\N{NO-BREAK SPACE}"


def known(value: object) -> bool:
    """Whether `value` is a finite number of Python or numpy, and not a boolean."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def count(value: float | None) -> str:
    """A whole number with thousands separators: 52,002."""
    return DASH if value is None or not known(value) else f"{round(value):,}".replace("-", MINUS)


def decimal(value: float | None, digits: int = 2) -> str:
    """A number with a fixed count of decimals: 0.25."""
    if value is None or not known(value):
        return DASH
    text = f"{value:,.{digits}f}"
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text.replace("-", MINUS)


def signed(value: float | None, digits: int = 2) -> str:
    """A difference with its sign: +0.25."""
    text = decimal(value, digits)
    return text if text == DASH or text.startswith(MINUS) else f"+{text}"


def percent(part: float | None, whole: float | None = 1.0, digits: int = 1) -> str:
    """`part` of `whole` in percent: 3.5 %; a dash if the whole is 0."""
    if part is None or whole is None or not known(part) or not whole:
        return DASH
    return f"{decimal(100 * part / whole, digits)}{_SPACE}%"


def plural(value: int, noun: str, nouns: str | None = None) -> str:
    """A count with its noun: 1 rater, 2 raters."""
    return f"{count(value)} {noun if value == 1 else nouns or noun + 's'}"


def span(low: float | None, high: float | None, digits: int = 2) -> str:
    """An interval: 0.10 to 0.31."""
    return DASH if low is None or high is None else f"{decimal(low, digits)} to {decimal(high, digits)}"


def duration(seconds: float) -> str:
    """Seconds in a readable unit: 0.4 s, 12 min, 3.5 h."""
    if seconds < 0.05:
        return f"under 0.1{_SPACE}s"
    if seconds < 10:
        return f"{seconds:.1f}{_SPACE}s"
    if seconds < 120:
        return f"{seconds:.0f}{_SPACE}s"
    if seconds < 7200:
        return f"{seconds / 60:.0f}{_SPACE}min"
    return f"{seconds / 3600:,.1f}{_SPACE}h"


def memory(size: float) -> str:
    """Bytes in binary units: 512 MiB, 1.4 GiB."""
    return f"{size / 2**30:,.1f}{_SPACE}GiB" if size >= 2**30 else f"{size / 2**20:,.0f}{_SPACE}MiB"


def listed(words: list[str], last: str = "and") -> str:
    """Words as a list in a sentence: a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}" if words else ""


def printable(text: str) -> str:
    """`text` on one line, without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def without_controls(text: str) -> str:
    """`text` with control characters such as NUL and ESC replaced; line breaks and tabs stay."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def shortened(text: str, limit: int) -> str:
    """`text` on one line, cut in its middle to `limit` characters, because names differ least there."""
    text = printable(text)
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 3
    return f"{text[: limit - 1 - tail].rstrip()}…{text[len(text) - tail :].lstrip()}"


def slugs(names: list[str]) -> dict[str, str]:
    """Unique slugs of names for anchors and file names: lower case letters, digits and hyphens."""
    made: dict[str, str] = {}
    for name in names:
        plain = slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"
        number = 2
        while slug in made.values():
            slug, number = f"{plain}-{number}", number + 1
        made[name] = slug
    return made


def clipped(text: str, limit: int) -> str:
    """`text` on one line, cut at its end to `limit` characters."""
    text = printable(text[: 4 * limit])
    return text if len(text) <= limit else f"{text[: limit - 1].rstrip()}…"
