"""A plot of a comparison of subsets, with panels for overlap, sources, lengths, scores and diversity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tamis.comparison.subsets import Comparison, Subset, Summary

_SOURCES_DRAWN = 9  # the other sources are drawn as one, because there are not enough colours
_COLUMNS = 2
# From the lowest to the highest class, then samples without a score.
_CLASS_COLORS = ("#b2182b", "#ef8a62", "#fddbc7", "#d1e5f0", "#67a9cf", "#2166ac", "#bbbbbb")


def plot(comparison: Comparison) -> Figure:
    """Draw `comparison`. Every panel except the first has a bar per subset and one for the pool."""
    from matplotlib.figure import Figure

    everything = [*comparison.subsets, comparison.pool]
    panels: list[Callable[[Axes], None]] = [
        partial(_overlap, comparison=comparison),
        partial(_shares, subsets=everything, title="Sources", parts=_sources(everything)),
        partial(
            _ranges,
            subsets=everything,
            title="Characters of the responses",
            values=[subset.lengths for subset in everything],
            log=True,
        ),
    ]
    if comparison.pool.diversity is not None:
        rare = [subset.diversity for subset in everything]
        panels.append(partial(_ranges, subsets=everything, title="Diversity (high for rare samples)", values=rare))
    for rater in comparison.pool.scores:
        title, parts = f"Score classes after curation, {rater}", _classes(everything, rater)
        panels.append(partial(_shares, subsets=everything, title=title, parts=parts, colors=_CLASS_COLORS))
    rows = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(13, rows * (1.8 + 0.45 * len(everything))), layout="constrained")
    grid = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes, draw in zip(grid, panels, strict=False):
        draw(axes)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    return figure


def _overlap(axes: Axes, comparison: Comparison) -> None:
    names = [subset.name for subset in comparison.subsets]
    axes.imshow(comparison.overlap, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_title("Overlap (Jaccard index)")
    for (row, column), share in np.ndenumerate(comparison.overlap):
        axes.text(column, row, f"{share:.2f}", ha="center", va="center", color="white" if share > 0.6 else "black")


def _shares(
    axes: Axes,
    subsets: Sequence[Subset],
    title: str,
    parts: dict[str, NDArray[np.float64]],
    colors: Sequence[str] | None = None,
) -> None:
    """Stacked bars of 100 %, divided into `parts`."""
    labels, start = [subset.name for subset in subsets], np.zeros(len(subsets))
    for number, (name, shares) in enumerate(parts.items()):
        axes.barh(labels, shares, left=start, label=name, color=colors[number] if colors else None)
        start += shares
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of the samples")
    axes.set_title(title)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _ranges(
    axes: Axes, subsets: Sequence[Subset], title: str, values: Sequence[Summary | None], *, log: bool = False
) -> None:
    """A bar from the 10th to the 90th percentile, with median and mean."""
    from matplotlib.ticker import LogLocator

    known = [(subset.name, value) for subset, value in zip(subsets, values, strict=True) if value is not None]
    names = [name for name, _ in known]
    low, high = (np.array([getattr(value, field) for _, value in known]) for field in ("p10", "p90"))
    axes.barh(names, high - low, left=low, color="tab:blue", alpha=0.3, label="10th to 90th percentile")
    axes.plot([value.median for _, value in known], names, "|", markersize=16, color="tab:blue", label="median")
    axes.plot([value.mean for _, value in known], names, "o", markersize=5, color="black", label="mean")
    axes.invert_yaxis()
    axes.use_sticky_edges = False  # a bar that ends at the frame looks cut off
    axes.autoscale_view()
    if log and low.min() > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_minor_formatter("")
    axes.set_title(title)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _classes(subsets: Sequence[Subset], rater: str) -> dict[str, NDArray[np.float64]]:
    """Percentages by score class, and of samples without a score."""
    counts = np.array([subset.scores[rater] for subset in subsets], float)
    sizes = np.array([subset.size for subset in subsets], float)
    named = {f"class {number}": 100 * column / sizes for number, column in enumerate(counts.T)}
    missing = 100 * (1 - counts.sum(1) / sizes)
    return named | ({"none": missing} if missing.max() > 0 else {})


def _sources(subsets: Sequence[Subset]) -> dict[str, NDArray[np.float64]]:
    """Percentages by source: the pool's largest sources first, the smallest combined."""
    pool = subsets[-1].sources
    by_size = sorted(pool, key=lambda name: (-pool[name], name))
    shares = {name: np.array([100 * s.sources[name] / s.size for s in subsets]) for name in by_size}
    if len(by_size) <= _SOURCES_DRAWN:
        return shares
    rest = by_size[_SOURCES_DRAWN:]
    drawn = {name: shares[name] for name in by_size[:_SOURCES_DRAWN]}
    return drawn | {f"{len(rest)} others": np.sum([shares[name] for name in rest], axis=0)}
