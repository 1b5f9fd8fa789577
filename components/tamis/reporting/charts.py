"""The report's kinds of plots. Each function returns a painter for `blocks.Figure`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tamis.core.reliability import Bin
from tamis.reporting.numbers import count, known, shortened
from tamis.reporting.style import CATEGORIES, LIGHT, SCALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import Locator

Painter: TypeAlias = "Callable[[Axes], None]"
_SLOTS = 6  # with fewer bars, the rest of the axis stays empty, so that bars are never wide
_LABEL = 24  # longest name on an axis, in characters
_APART = 1.025  # neighbouring curves on a logarithmic axis


def scale_colours(classes: int) -> list[str]:
    """One colour of the sequential scale per score class, from low to high."""
    last = len(SCALE) - 1
    return [SCALE[round(i * last / max(classes - 1, 1))] for i in range(classes)]


def category_colours(categories: int) -> list[str]:
    """One colour per category; they repeat after eight."""
    return [CATEGORIES[i % len(CATEGORIES)] for i in range(categories)]


def bars(
    labels: Sequence[str], values: Sequence[float], *, x: str = "", colours: Sequence[str] | None = None
) -> Painter:
    """Vertical bars with their values above; `colours` names one of the theme's colours per bar."""

    def paint(axes: Axes) -> None:
        places = np.arange(len(values))
        axes.bar(places, values, width=0.78, color=[LIGHT[c] for c in colours or ["accent"] * len(values)])
        for place, value in zip(places, values, strict=True):
            axes.annotate(
                count(value),
                (place, value),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=10,
                color=LIGHT["muted"] if value else LIGHT["raw"],
            )
        axes.set_xticks(places, labels)
        axes.set_xlim(-0.6, max(len(values), _SLOTS) - 0.4)
        axes.set_yticks([])
        axes.set_ylim(0, 1.1 * max([*values, 1]))
        axes.set_xlabel(x)

    return paint


def paired_bars(labels: Sequence[str], series: Mapping[str, Sequence[float]], *, x: str = "") -> Painter:
    """Two bars per label, as before (grey) and after (accent)."""

    def paint(axes: Axes) -> None:
        places, width = np.arange(len(labels)), 0.4
        for number, ((name, values), colour) in enumerate(zip(series.items(), ("raw", "accent"), strict=True)):
            shifted = places + (number - 0.5) * width
            axes.bar(shifted, values, width=width * 0.94, color=LIGHT[colour], label=name)
            for place, value in zip(shifted, values, strict=True):
                axes.annotate(
                    _two_figures(value),
                    (place, value),
                    xytext=(0, 3),
                    textcoords="offset points",
                    ha="center",
                    fontsize=10,
                    color=LIGHT["muted"],
                )
        axes.set_xticks(places, labels)
        axes.set_yticks([])
        axes.set_ylim(0, 1.1 * max(max(values) for values in series.values()) or 1)
        axes.set_xlabel(x)
        _legend(axes, 2)

    return paint


def histogram(counts: NDArray[np.int64], edges: NDArray[np.float64], *, x: str, log: bool = False) -> Painter:
    """Bars between `edges` (one more than `counts`), on a logarithmic axis if `log`."""

    def paint(axes: Axes) -> None:
        axes.bar(
            edges[:-1], counts, width=np.diff(edges), align="edge", color=LIGHT["accent"], ec=LIGHT["paper"], lw=0.7
        )
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(_few_per_decade(edges))
        axes.xaxis.set_major_formatter(lambda value, _: _compact(value))
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.yaxis.set_major_formatter(lambda value, _: _compact(value))
        axes.locator_params(axis="y", nbins=4, integer=True)
        axes.grid(axis="y")
        axes.set_xlim(edges[0], edges[-1])
        axes.set_xlabel(x)

    return paint


def heat_map(
    shares: NDArray[np.float64],
    texts: Sequence[Sequence[str]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    y: str,
    x: str,
) -> Painter:
    """Cells as dark as their share (0..1) with a text in each; the diagonal is framed where the matrix is square."""

    def paint(axes: Axes) -> None:
        from matplotlib.patches import Rectangle

        height, width = shares.shape
        for i in range(height):
            for j in range(width):
                share = float(shares[i, j]) if np.isfinite(shares[i, j]) else 0.0
                axes.add_patch(
                    Rectangle((j + 0.03, i + 0.03), 0.94, 0.94, color=LIGHT["accent"], lw=0, alpha=0.05 + 0.95 * share)
                )
                if height == width and i == j:
                    frame = Rectangle((j + 0.03, i + 0.03), 0.94, 0.94, fill=False, ec=LIGHT["accent"], lw=1)
                    axes.add_patch(frame)
                axes.text(
                    j + 0.5,
                    i + 0.52,
                    texts[i][j],
                    ha="center",
                    va="center",
                    fontsize=11,
                    color=LIGHT["paper"] if share > 0.7 else LIGHT["ink"],
                )
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.set_xticks(np.arange(width) + 0.5, columns)
        axes.set_yticks(np.arange(height) + 0.5, rows)
        axes.spines["bottom"].set_visible(False)
        axes.set_xlabel(x)
        axes.set_ylabel(y)

    return paint


def line(values: Sequence[float | None], *, x: str, y: str, low: float | None = None) -> Painter:
    """A line through values at ranks 1, 2, …; `low`, if given, is drawn as the level of chance."""

    def paint(axes: Axes) -> None:
        heights = np.array([value if known(value) else np.nan for value in values], dtype=float)
        ranks = np.arange(1, len(heights) + 1)
        axes.plot(ranks, heights, color=LIGHT["accent"], lw=1.8, marker="o", ms=3.5 if len(heights) < 40 else 0)
        if low is not None:
            axes.axhline(low, color=LIGHT["raw"], lw=1.2, ls=(0, (4, 3)))
            axes.annotate(
                "chance",
                (1, low),
                xycoords=("axes fraction", "data"),
                xytext=(0, -4),
                textcoords="offset points",
                ha="right",
                va="top",
                color=LIGHT["muted"],
            )
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
        axes.locator_params(axis="x", integer=True)
        axes.locator_params(axis="y", nbins=5)
        finite = [*heights[np.isfinite(heights)], *([] if low is None else [low])]
        middle, reach = (max(finite) + min(finite)) / 2, 0.6 * max(max(finite) - min(finite), 0.25)
        axes.set_ylim(max(middle - reach, -0.02), middle + reach)
        axes.grid(axis="y")
        axes.set_xlabel(x)
        axes.set_ylabel(y)

    return paint


def stacked(
    rows: Sequence[str], shares: NDArray[np.float64], parts: Sequence[str], colours: Sequence[str], *, legend: int = 6
) -> Painter:
    """Horizontal bars of length 1, one per row, cut into `parts`; shares of 7 % and more are written in."""

    def paint(axes: Axes) -> None:
        left = np.zeros(len(rows))
        places = np.arange(len(rows))
        for j, (part, colour) in enumerate(zip(parts, colours, strict=True)):
            axes.barh(
                places, shares[:, j], left=left, height=0.66, color=LIGHT[colour], label=part, ec=LIGHT["paper"], lw=0.8
            )
            for i in np.flatnonzero(shares[:, j] >= 0.07).tolist():
                axes.text(
                    left[i] + shares[i, j] / 2,
                    i,
                    f"{100 * shares[i, j]:.0f}",
                    ha="center",
                    va="center_baseline",
                    fontsize=10,
                    color=LIGHT["ink"] if colour in {"s0", "s1", "s2"} else LIGHT["paper"],
                )
            left += shares[:, j]
        _name_rows(axes, rows)
        axes.set_xlim(0, 1)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        # A legend of the whole figure: long row names leave too little room above the bars.
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.legend(loc="outside upper left", ncols=legend, labelcolor=LIGHT["muted"])

    return paint


def ranges(rows: Sequence[str], quantiles: NDArray[np.float64], *, x: str) -> Painter:
    """For each row a thin line from the 10th to the 90th percentile, a thick one over the middle half, a median dot.

    Args:
        rows: names.
        quantiles: (rows, 5), the 10th, 25th, 50th, 75th and 90th percentiles, all above 0.
        x: label of the logarithmic axis.
    """

    def paint(axes: Axes) -> None:
        for i, (p10, p25, p50, p75, p90) in enumerate(quantiles):
            axes.plot([p10, p90], [i, i], color=LIGHT["raw"], lw=1.4, solid_capstyle="round")
            axes.plot([p25, p75], [i, i], color=LIGHT["accent"], lw=5, solid_capstyle="butt")
            axes.plot(p50, i, "o", color=LIGHT["paper"], mec=LIGHT["accent"], mew=1.8, ms=7)
        _name_rows(axes, rows)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(_few_per_decade(quantiles))
        axes.xaxis.set_major_formatter(lambda value, _: _compact(value))
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.grid(axis="x")
        axes.set_xlabel(x)

    return paint


def dots(
    rows: Sequence[str],
    values: Sequence[float | None],
    low: Sequence[float | None],
    high: Sequence[float | None],
    *,
    x: str,
    reference: float | None = None,
    highlighted: Sequence[int] = (),
    empty: str = "no value",
    percent: bool = False,
) -> Painter:
    """One dot per row with its interval; a row without a value shows the text `empty` instead.

    `reference` draws a vertical line; the rows in `highlighted` are in the accent colour, the others grey.
    """

    def paint(axes: Axes) -> None:
        if reference is not None:
            axes.axvline(reference, color=LIGHT["raw"], lw=1.2, ls=(0, (4, 3)))
        for i, (value, start, end) in enumerate(zip(values, low, high, strict=True)):
            colour = LIGHT["accent" if i in highlighted else "muted"]
            if value is None or not known(value):
                axes.annotate(
                    empty,
                    (0.02, i),
                    xycoords=("axes fraction", "data"),
                    va="center_baseline",
                    color=LIGHT["alert"],
                    fontsize=10,
                )
                continue
            if start is not None and end is not None:
                axes.plot([start, end], [i, i], color=colour, lw=1.6, solid_capstyle="round")
            axes.plot(value, i, "o", color=colour, ms=6.5)
        _name_rows(axes, rows)
        axes.grid(axis="x")
        axes.locator_params(axis="x", nbins=5)
        if percent:
            axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}")
        axes.margins(x=0.08)
        axes.set_xlabel(x)

    return paint


def pairs(
    rows: Sequence[str], before: Sequence[float | None], after: Sequence[float | None], *, x: str, names: Sequence[str]
) -> Painter:
    """Two dots per row, before (grey) and after (accent), joined by a line; `names` of both are in the legend."""

    def paint(axes: Axes) -> None:
        axes.axvline(0, color=LIGHT["raw"], lw=1.2, ls=(0, (4, 3)))
        for i, (one, other) in enumerate(zip(before, after, strict=True)):
            if one is not None and other is not None:
                axes.plot([one, other], [i, i], color=LIGHT["line"], lw=3, solid_capstyle="butt", zorder=1.5)
        for values, colour, name in zip((before, after), ("muted", "accent"), names, strict=True):
            found = [(value, i) for i, value in enumerate(values) if value is not None]
            places = [place for _, place in found]
            axes.plot([value for value, _ in found], places, "o", color=LIGHT[colour], ms=6.5, label=name)
        ends = [value for value in (*before, *after) if value is not None]
        # At least a tenth on either side, so that a tiny change does not look large.
        axes.set_xlim(min([*ends, 0]) - 0.1, max([*ends, 0.3]) + 0.1)
        _name_rows(axes, rows)
        axes.grid(axis="x")
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel(x)
        _legend(axes, 2)

    return paint


def reliability(bins: Sequence[Bin], *, x: str, y: str) -> Painter:
    """Share of right scores with its interval against mean confidence, with the diagonal; below, samples per bin."""

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=LIGHT["raw"], lw=1.2, ls=(0, (4, 3)))
        for each in bins:
            axes.plot([each.said, each.said], [each.low, each.high], color=LIGHT["accent"], lw=1.6)
            axes.plot(each.said, each.right, "o", color=LIGHT["accent"], ms=6.5)
            axes.text(
                (each.start + each.end) / 2,
                -0.1,
                _two_figures(each.count) if each.count < 1_000 else _compact(1_000 * round(each.count / 1_000)),
                ha="center",
                va="center_baseline",
                fontsize=10,
                color=LIGHT["muted"],
            )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(np.linspace(0, 1, 6))
            axis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.17, 1.03)
        axes.grid()
        axes.set_xlabel(x)
        axes.set_ylabel(y)

    return paint


@dataclass(frozen=True)
class Curve:
    """Points of one name: (m,) `x` ascending, `y`, and half the length of each error bar (None: no bar)."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    reach: Sequence[float | None]


def curves(
    series: Sequence[Curve], *, x: str, y: str, reference: float | None = None, percent: bool = False
) -> Painter:
    """Lines over a logarithmic axis, with error bars; `reference` draws a horizontal line."""

    def paint(axes: Axes) -> None:
        if reference is not None:
            axes.axhline(reference, color=LIGHT["raw"], lw=1.2, ls=(0, (4, 3)))
        markers = "os^Dv"
        for number, (curve, colour) in enumerate(zip(series, category_colours(len(series)), strict=True)):
            shade, marker = LIGHT[colour], markers[number // len(CATEGORIES) % len(markers)]
            # Shifted a little, so that error bars at the same place do not hide each other.
            shift = _APART ** (number - (len(series) - 1) / 2)
            shifted = [place * shift for place in curve.x]
            axes.plot(
                shifted, curve.y, color=shade, lw=1.6, marker=marker, ms=5, label=shortened(curve.name, 2 * _LABEL)
            )
            for place, value, reach in zip(shifted, curve.y, curve.reach, strict=True):
                if reach is not None:
                    axes.plot([place, place], [value - reach, value + reach], color=shade, lw=1.2)
        places = sorted({place for curve in series for place in curve.x})
        axes.set_xscale("log")
        axes.set_xticks(places, [_compact(place) for place in places])
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        if percent:
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}")
        axes.locator_params(axis="y", nbins=5)
        axes.margins(x=0.06, y=0.1)
        axes.grid(axis="y")
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        _legend(axes, 1)

    return paint


def _name_rows(axes: Axes, rows: Sequence[str]) -> None:
    axes.set_yticks(np.arange(len(rows)), [shortened(row, _LABEL) for row in rows], color=LIGHT["ink"])
    axes.set_ylim(len(rows) - 0.5, -0.5)


def _legend(axes: Axes, columns: int) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, labelcolor=LIGHT["muted"])


def _few_per_decade(values: NDArray[np.float64]) -> Locator:
    """Ticks at 1, 2 and 5 of each decade on a short axis, otherwise at decades only."""
    from matplotlib.ticker import LogLocator

    short = np.nanmax(values) / max(np.nanmin(values), 1e-9) < 100
    return LogLocator(subs=(1.0, 2.0, 5.0) if short else (1.0,))


def _two_figures(value: float) -> str:
    """A count that is not wider than a bar: 950, 2.3k, 12k, 340k."""
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if value >= 10 * size:
            return f"{value / size:.0f}{unit}"
        if value >= size:
            return f"{value / size:.1f}{unit}"
    return f"{value:.0f}"


def _compact(value: float) -> str:
    """A number in few characters: 950, 12k, 3.4M."""
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if abs(value) >= 10 * size or (abs(value) >= size and value % (size // 10) == 0):
            return f"{value / size:.3g}{unit}"
    return f"{value:,.0f}"
