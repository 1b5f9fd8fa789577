"""Comparison of subsets: overlap, sources, lengths, scores and diversity."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError
from tamis.core.ids import pack, positions
from tamis.core.markdown import table
from tamis.core.steps import Uri
from tamis.core.storage import locate, write_bytes
from tamis.selection.reading import raters_of, read_curation, read_pool

_SCORE_CLASSES = 6
_POOL = "(pool)"


@dataclass(frozen=True)
class Summary:
    """Mean, median and the 10th and 90th percentile of a quantity over a set of samples."""

    mean: float
    median: float
    p10: float
    p90: float


@dataclass(frozen=True)
class Subset:
    """Statistics of a subset, or of the whole pool.

    Attributes:
        name: the selection's name, or "(pool)".
        size: number of samples.
        sources: number of samples by source.
        lengths: lengths of the responses in characters.
        scores: by rater, the number of samples in each score class after curation, lowest class first.
        diversity: long-tail diversity scores; None without a curation.
    """

    name: str
    size: int
    sources: dict[str, int]
    lengths: Summary
    scores: dict[str, list[int]]
    diversity: Summary | None


@dataclass(frozen=True)
class Comparison:
    """m subsets and their pool.

    Attributes:
        pool: the whole pool.
        subsets: the m subsets, in the given order.
        shared: (m, m) int64, number of samples in both subsets.
        overlap: (m, m) float64, Jaccard index: number of samples in both, divided by the number in either.
    """

    pool: Subset
    subsets: list[Subset]
    shared: NDArray[np.int64]
    overlap: NDArray[np.float64]


def jaccard(members: Sequence[NDArray[np.bool_]]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Overlap of m sets, given as masks (n,): sizes of intersections (m, m), and Jaccard indices (m, m)."""
    shared = np.array([[np.count_nonzero(one & other) for other in members] for one in members], np.int64)
    sizes = np.diag(shared)
    either = sizes[:, None] + sizes[None, :] - shared
    return shared, shared / either


def summary(values: NDArray[Any]) -> Summary:
    """The summary of (n,) `values`, n at least 1."""
    p10, median, p90 = np.percentile(values, [10, 50, 90])
    return Summary(float(np.mean(values, dtype=np.float64)), float(median), float(p10), float(p90))


def compare(selections: Sequence[Artifact], pool: Artifact, curation: Artifact | None = None) -> Comparison:
    """Compare `selections` of a `pool`. Scores and diversity need a `curation`.

    Raises:
        InputError: when two selections have the same name, or one has samples that are not in the pool.
    """
    names = [selection.name for selection in selections]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two selections are called '{repeated[0]}'", action="give selections with different names")
    candidates = read_pool(pool, lengths=True)
    lengths = candidates.column("lengths")
    scores: dict[str, NDArray[Any]] = {}
    diversity = None
    if curation is not None:
        for rater in raters_of(curation):
            found, _ = read_curation(curation, rater, ["scores", "diversity"], candidates.ids)
            scores[rater] = found["scores"]
            diversity = found["diversity"]  # the same for every rater, because it comes from the graph

    def describe(name: str, member: NDArray[np.bool_]) -> Subset:
        counts = np.bincount(candidates.sources[member], minlength=len(candidates.source_names))
        known = diversity[member] if diversity is not None else np.empty(0)
        known = known[~np.isnan(known)]
        return Subset(
            name=name,
            size=int(np.count_nonzero(member)),
            sources={source: int(n) for source, n in sorted(zip(candidates.source_names, counts, strict=True))},
            lengths=summary(lengths[member]),
            scores={
                rater: np.bincount(values[member & (values >= 0)], minlength=_SCORE_CLASSES).tolist()
                for rater, values in scores.items()
            },
            diversity=summary(known) if len(known) else None,
        )

    members = []
    for selection in selections:
        member = np.zeros(len(candidates), bool)
        member[_rows_of(selection, candidates.ids)] = True
        members.append(member)
    shared, overlap = jaccard(members)
    return Comparison(
        pool=describe(_POOL, np.ones(len(candidates), bool)),
        subsets=[describe(name, member) for name, member in zip(names, members, strict=True)],
        shared=shared,
        overlap=overlap,
    )


def _rows_of(selection: Artifact, ids: NDArray[np.bytes_]) -> NDArray[np.int64]:
    with pq.ParquetFile(selection.path("selection.parquet")) as file:
        batches = file.iter_batches(columns=["id"])
        keys = np.concatenate([pack(batch["id"], where=f"{selection.location}") for batch in batches])
    rows = positions(keys, ids)
    if missing := int(np.count_nonzero(rows < 0)):
        raise InputError(
            f"{selection.location}: {missing:,} of its {len(rows):,} samples are not in the pool",
            action="give the pool from which the selection was made",
        )
    return rows


def markdown(comparison: Comparison) -> str:
    """The comparison as Markdown tables."""
    subsets, everything = comparison.subsets, [*comparison.subsets, comparison.pool]
    names = [subset.name for subset in subsets]
    overlap = [
        [name, *(f"{share:.3f} ({count:,})" for share, count in zip(shares, counts, strict=True))]
        for name, shares, counts in zip(names, comparison.overlap, comparison.shared, strict=True)
    ]
    sources = list(comparison.pool.sources)
    parts = [
        "# Comparison of subsets",
        "## Overlap",
        "Jaccard index: samples in both subsets, divided by samples in either. In brackets: samples in both.",
        table(["subset", *names], overlap),
        "## Sources",
        "Percentage of the subset's samples.",
        table(
            ["subset", "samples", *sources],
            [[s.name, f"{s.size:,}", *(f"{100 * s.sources[n] / s.size:.1f}" for n in sources)] for s in everything],
        ),
        "## Length",
        "Characters of the responses.",
        table(["subset", *_SUMMARY], [[s.name, *_cells(s.lengths, ",.0f")] for s in everything]),
    ]
    if comparison.pool.scores:
        rows = [[s.name, rater, *_score_cells(s, rater)] for rater in comparison.pool.scores for s in everything]
        parts += [
            "## Scores after curation",
            "Mean score class, and percentage of the subset's samples in each class and without a score.",
            table(["subset", "rater", "mean", *(f"class {c}" for c in range(_SCORE_CLASSES)), "none"], rows),
        ]
    if comparison.pool.diversity is not None:
        parts += [
            "## Diversity",
            "Long-tail diversity score. Rare samples have high scores.",
            table(["subset", *_SUMMARY], [[s.name, *_cells(s.diversity, ".4f")] for s in everything]),
        ]
    return "\n\n".join(parts) + "\n"


_SUMMARY = ("mean", "median", "10th percentile", "90th percentile")


def _cells(values: Summary | None, form: str) -> list[str]:
    if values is None:
        return ["none"] * len(_SUMMARY)
    return [format(value, form) for value in (values.mean, values.median, values.p10, values.p90)]


def _score_cells(subset: Subset, rater: str) -> list[str]:
    counts = subset.scores[rater]
    rated = sum(counts)
    mean = f"{sum(score * count for score, count in enumerate(counts)) / rated:.3f}" if rated else "none"
    return [mean, *(f"{100 * count / subset.size:.1f}" for count in [*counts, subset.size - rated])]


def overlap_csv(comparison: Comparison) -> str:
    """The Jaccard indices as CSV, with a row and a column per subset."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["subset", *(subset.name for subset in comparison.subsets)])
    for subset, shares in zip(comparison.subsets, comparison.overlap, strict=True):
        writer.writerow([subset.name, *(f"{share:.6f}" for share in shares)])
    return text.getvalue()


def compare_report(selections: Sequence[Uri], *, pool: Uri, curation: Uri | None = None, out: Uri) -> str:
    """Compare finished selections and write `overlap.csv`, `comparison.md` and `comparison.png` to `out`.

    Args:
        selections: one or more selection artifacts, local or remote.
        pool: the pool from which they were made.
        curation: needed for scores and diversity.
        out: a local folder, or a prefix in object storage; existing files with these names are replaced.

    Returns:
        The text of `comparison.md`.

    Raises:
        ArtifactError: when an input cannot be used.
        InputError: when selections cannot be compared.
        StorageError: when `out` cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="tamis-") as cache:
        comparison = compare(
            [Artifact.open(uri, "selection", cache=Path(cache)) for uri in selections],
            Artifact.open(pool, "pool", cache=Path(cache)),
            None if curation is None else Artifact.open(curation, "curation", cache=Path(cache)),
        )
    from tamis.comparison.subsets_plot import plot

    text, picture = markdown(comparison), io.BytesIO()
    plot(comparison).savefig(picture, format="png", dpi=120, metadata={"Software": None})
    folder = locate(out)
    write_bytes(folder / "overlap.csv", overlap_csv(comparison).encode())
    write_bytes(folder / "comparison.md", text.encode())
    write_bytes(folder / "comparison.png", picture.getvalue())
    return text
