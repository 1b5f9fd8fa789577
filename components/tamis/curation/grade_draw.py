"""Choose the samples to grade, from a rater's curated scores: a random core and the most doubtful samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError, SettingsError
from tamis.core.ids import Keys, pack, tie_breaks
from tamis.curation.classes import UNRATED
from tamis.curation.honest import predictions
from tamis.curation.settings import COMBINED

_ROWS = 100_000  # rows of a table that are read together
_EVEN = 0.25  # share of the random core that is spread evenly over the strata; the rest is proportional to their sizes


@dataclass(frozen=True)
class Scores:
    """The curation's results for one rater.

    Attributes:
        rater: the rater.
        keys: (n,) samples.
        raw: (n,) score class as rated, -1 if there is none.
        score: (n,) score class after curation, -1 if there is none.
        confidence: (n,) probability that `score` is right, NaN if there is none.
        loss: (n,) lower bound of the curated score's expected error in classes, NaN if unknown.
    """

    rater: str
    keys: Keys
    raw: NDArray[np.int8]
    score: NDArray[np.int8]
    confidence: NDArray[np.float64]
    loss: NDArray[np.float64]

    def of(self, rows: NDArray[np.intp]) -> Scores:
        """Some of the samples."""
        return Scores(
            self.rater, self.keys[rows], self.raw[rows], self.score[rows], self.confidence[rows], self.loss[rows]
        )


@dataclass(frozen=True)
class Drawn:
    """The samples to grade.

    Attributes:
        rows: (m,) rows of the samples, in the order of grading.
        weights: (m,) 1 / the probability that the sample was drawn; NaN for the informative samples.
    """

    rows: NDArray[np.intp]
    weights: NDArray[np.float64]

    @property
    def random(self) -> int:
        """Number of samples that were drawn at random."""
        return int(np.isfinite(self.weights).sum())


def read_scores(curation: Artifact, rater: str | None = None) -> Scores:
    """The curation's results for one rater's samples that have a score.

    Raises:
        SettingsError: when the rater is unknown, or none is named although there are several and no `combined`.
        InputError: when no sample has a score.
    """
    import pyarrow.parquet as pq

    raters = dict.fromkeys(
        name for batch in curation.batches(["rater"], rows=_ROWS) for name in pc.unique(batch["rater"]).to_pylist()
    )
    chosen = rater or (COMBINED if len(raters) > 1 else next(iter(raters), ""))
    if chosen not in raters:
        seen = f"there is no rater '{chosen}'" if rater else f"{len(raters)} raters have scores, but none is named"
        raise SettingsError(f"{curation.location}: {seen}", allowed=f"--rater, one of {', '.join(raters)}")
    columns = ["id", "rater", "raw_score", "score", "error_probability", "confidence"]
    there = pq.read_schema(curation.parts()[0]).names
    columns += [name for name in ("mean", "posterior") if name in there]
    blocks = []
    for batch in curation.batches(columns, rows=_ROWS):
        scored = pc.or_(pc.is_valid(batch["raw_score"]), pc.is_valid(batch["score"]))
        blocks.append(batch.filter(pc.and_(pc.equal(batch["rater"], chosen), scored)))
    table = pa.Table.from_batches(blocks)
    if not len(table):
        raise InputError(f"{curation.location}: no sample of the rater '{chosen}' has a score")
    raw, score = (_classes(table[name]) for name in ("raw_score", "score"))
    confidence, wrong = (_numbers(table[name]) for name in ("confidence", "error_probability"))
    mean = _numbers(table["mean"]) if "mean" in table.column_names else np.full(len(table), np.nan)
    keys = np.concatenate([pack(chunk, where=f"{curation.location}") for chunk in table["id"].chunks])
    loss = expected_loss(raw, score, confidence, wrong, mean)
    if "posterior" in table.column_names:
        exact = predictions(_lists(table["posterior"]), raw, score)["curated_error"]
        loss = np.where(np.isnan(exact), loss, exact)
    return Scores(chosen, keys, raw, score, confidence, loss)


def expected_loss(
    raw: NDArray[np.int8],
    score: NDArray[np.int8],
    confidence: NDArray[np.float64],
    error_probability: NDArray[np.float64],
    mean: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Lower bound of the curated score's expected error in classes: (n,), NaN if unknown.

    The expected distance to the true class is at least the probability that the score is wrong and, by Jensen's
    inequality, at least the distance to the posterior mean.

    Args:
        raw: (n,) score class as rated, -1 if there is none.
        score: (n,) score class after curation, -1 if there is none.
        confidence: (n,) probability that `score` is right; without a score, that of the most probable class.
        error_probability: (n,) probability that `raw` is wrong.
        mean: (n,) posterior mean of the true class; used only if `confidence` is known, since modes without a posterior
            write the score instead.
    """
    wrong = np.where(score == raw, error_probability, 1 - confidence)
    wrong = np.where((score == UNRATED) | np.isnan(wrong), 1 - confidence, wrong)
    far = np.where((score == UNRATED) | np.isnan(confidence), np.nan, np.abs(score - mean))
    result: NDArray[np.float64] = np.fmax(wrong, far)
    return result


def draw(scores: Scores, sources: NDArray[np.intp], *, size: int, random_share: float = 0.5, seed: int = 0) -> Drawn:
    """Choose the samples to grade: a random core, and the samples with the greatest expected loss.

    The core is stratified by source and curated class. Three quarters of it are proportional to the sizes of the
    strata, and one quarter is spread evenly, so that rare classes are included. It is drawn systematically with known
    probabilities (Madow, 1949), so estimates with its weights are unbiased. If too few samples have a known loss, more
    are drawn at random. The result depends on ids and `seed` only, not on the order of the samples.

    Args:
        scores: the samples that may be drawn.
        sources: (n,) source of each.
        size: number of samples; all if there are fewer.
        random_share: share of the core, 0..1.
        seed: seed of the draw.
    """
    size = min(size, len(scores.keys))
    known = np.isfinite(scores.loss)
    strata = np.unique(sources * (int(scores.score.max()) + 2) + scores.score + 1, return_inverse=True)[1]
    order = np.lexsort((tie_breaks(scores.keys, seed, "core"), strata))
    start = np.random.default_rng(seed).random()
    core = int(size * random_share + 0.5)
    while True:
        probability = _probabilities(strata, core)
        picked = _systematic(probability[order], start, core, order)
        left = known.copy()
        left[picked] = False
        if (doubtful := int(left.sum())) >= size - core:
            break
        core = size - doubtful
    rest = np.flatnonzero(left)
    ranked = rest[np.lexsort((tie_breaks(scores.keys[rest], seed, "informative"), -scores.loss[rest]))]
    rows = np.concatenate([picked, ranked[: size - core]])
    weights = np.concatenate([1 / probability[picked], np.full(size - core, np.nan)])
    mixed = np.argsort(
        tie_breaks(scores.keys[rows], seed, "order")
    )  # so that a grader who stops early has graded a random part
    return Drawn(rows[mixed], weights[mixed])


def _systematic(probability: NDArray[np.float64], start: float, count: int, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Systematic sampling: `count` of `rows` (n,), at steps of length 1 along the cumulated `probability` (n,)."""
    ends = np.cumsum(probability)
    steps = (start + np.arange(count)) * (ends[-1] / count if count else 1.0)  # the sum is `count` but for rounding
    return rows[np.searchsorted(ends, steps, side="right")]


def _probabilities(strata: NDArray[np.intp], core: int) -> NDArray[np.float64]:
    """(n,) probability that each sample is among the `core` drawn ones; the sum is `core`."""
    sizes = np.bincount(strata)
    quota = core * ((1 - _EVEN) * sizes / sizes.sum() + _EVEN / len(sizes))
    full = np.zeros(len(sizes), bool)
    while (over := ~full & (quota > sizes)).any():  # a stratum cannot give more than it has; the others give more then
        full |= over
        quota[full] = sizes[full]
        rest = core - sizes[full].sum()
        quota[~full] *= rest / quota[~full].sum() if rest > 0 else 0.0
    result: NDArray[np.float64] = (quota / sizes)[strata]
    return result


def _classes(column: pa.ChunkedArray) -> NDArray[np.int8]:
    return pc.fill_null(column, UNRATED).to_numpy().astype(np.int8)  # type: ignore[no-any-return]


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return pc.fill_null(column, float("nan")).to_numpy().astype(np.float64)  # type: ignore[no-any-return]


def _lists(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """(n, K) values of a column of fixed-size lists; NaN for null."""
    width = column.type.list_size
    blocks = [np.empty((0, width), np.float32)]
    for chunk in column.chunks:
        block = np.full((len(chunk), width), np.nan, np.float32)
        block[chunk.is_valid().to_numpy(zero_copy_only=False)] = chunk.flatten().to_numpy().reshape(-1, width)
        blocks.append(block)
    return np.concatenate(blocks)
