"""Read ratings and curated scores, aligned with the pool."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.tables import criteria_in
from tamis.reporting.diagnoses import Findings, read_findings
from tamis.reporting.numbers import shortened
from tamis.reporting.samples import Samples

_REASON, _REASONS = 160, 1_000  # characters of a reason, and number of distinct reasons: some quote answers


@dataclass
class Ratings:
    """One rater's ratings.

    Attributes:
        overall: (n,) 1..10, 0 if the sample has no rating.
        statuses: number of samples with each status; "absent" counts samples of the pool without a row.
        reasons: number of unrated samples for each (status, reason).
        means: mean of each criterion over the rated samples, for criteria that the rater scored.
        expected: mean of the expected score, None if the rater returned no probabilities.
    """

    artifact: Artifact
    rater: str
    overall: NDArray[np.int8]
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    means: dict[str, float] = field(default_factory=dict)
    expected: float | None = None
    attempts: int = 0
    tokens: int = 0

    @property
    def rated(self) -> int:
        """Samples with a rating."""
        return int(np.count_nonzero(self.overall))

    @property
    def histogram(self) -> NDArray[np.int64]:
        """(10,) number of samples rated 1, 2, …, 10."""
        return np.bincount(self.overall, minlength=11)[1:11]


def read_ratings(artifact: Artifact, samples: Samples) -> Ratings:
    """Read one ratings artifact in batches."""
    ratings = Ratings(artifact, artifact.name, np.zeros(len(samples), np.int8))
    averaged = [*_criteria_of(artifact), "overall", "expected"]
    sums, counts = dict.fromkeys(averaged, 0.0), dict.fromkeys(averaged, 0)
    columns = ["id", "rater", *averaged, "status", "error", "attempts", "prompt_tokens"]
    for batch in artifact.batches([*columns, "completion_tokens"]):
        values = {name: _filled(batch[name]) for name in averaged}
        ratings.overall[samples.positions(batch["id"], artifact)] = np.nan_to_num(values["overall"]).astype(np.int8)
        for name, column in values.items():
            sums[name] += float(np.nansum(column))
            counts[name] += int(np.count_nonzero(~np.isnan(column)))
        statuses = batch["status"].to_pylist()
        ratings.statuses.update(statuses)
        for status, error in zip(statuses, batch["error"].to_pylist(), strict=True):
            if status != "ok":
                reason = (status, shortened(error or "", _REASON))
                known = reason in ratings.reasons or len(ratings.reasons) < _REASONS
                ratings.reasons[reason if known else (status, "other reasons")] += 1
        ratings.attempts += int(np.nansum(_filled(batch["attempts"])))
        ratings.tokens += sum(int(np.nansum(_filled(batch[f"{side}_tokens"]))) for side in ("prompt", "completion"))
        ratings.rater = ratings.rater or (batch["rater"][0].as_py() if len(batch) else "")
    absent = len(samples) - artifact.manifest.rows
    if absent > 0:
        ratings.statuses["absent"] = absent
    means = {name: sums[name] / counts[name] for name in sums if counts[name]}
    ratings.expected = means.pop("expected", None)
    ratings.means = means
    return ratings


def _criteria_of(artifact: Artifact) -> list[str]:
    """The columns of a ratings artifact that are criteria, without the overall rating."""
    return criteria_in(pq.read_schema(artifact.parts()[0]))


@dataclass(frozen=True)
class Neighbor:
    """A near sample, its raw score class by the same rater (None: no rating), and its cosine distance."""

    id: str
    raw: int | None
    distance: float


@dataclass(frozen=True)
class TopCorrection:
    """A corrected rating, to be shown with its text and, if known, its nearest neighbours."""

    id: str
    position: int
    raw: int
    score: int
    confidence: float | None
    neighbors: tuple[Neighbor, ...] = ()


@dataclass
class Curated:
    """One rater's scores before and after curation.

    Attributes:
        raw, score: (n,) score classes, -1 if there is none.
        flagged: (n,) whether the rating is probably wrong.
        confidence: (n,) probability that `score` is right, NaN if unknown.
        mean: (n,) posterior mean of the true class, NaN if unknown.
        believed: the curation's mean probability that a raw rating is right; None if unknown.
        diagnosis: the rater's entry in `diagnosis.json`; keys may be missing.
        top: the most confident corrections, the most confident first.
    """

    rater: str
    raw: NDArray[np.int8]
    score: NDArray[np.int8]
    flagged: NDArray[np.bool_]
    confidence: NDArray[np.float32]
    mean: NDArray[np.float32]
    diagnosis: dict[str, Any]
    top: list[TopCorrection] = field(default_factory=list)
    believed: float | None = None

    @property
    def combines(self) -> bool:
        """Whether these are the scores of several raters combined."""
        return "raters" in self.diagnosis or "rater_T" in self.diagnosis

    @cached_property
    def findings(self) -> Findings:
        """The joint model's findings, as far as the diagnosis has them."""
        return read_findings(self.diagnosis)

    @property
    def rated(self) -> int:
        """Samples with a rating."""
        return int(np.count_nonzero(self.raw >= 0))

    @property
    def corrected(self) -> int:
        """Ratings whose score class was changed."""
        return int(np.count_nonzero((self.raw >= 0) & (self.score != self.raw)))


@dataclass(frozen=True)
class Curation:
    """The curation artifact: one `Curated` per rater, and the samples' diversity (n,), NaN if unknown."""

    artifact: Artifact
    raters: dict[str, Curated]
    diversity: NDArray[np.float32]


def read_curation(artifact: Artifact, samples: Samples, examples: int) -> Curation:
    """Read the curation in batches, keeping the `examples` most confident corrections of each rater."""
    diagnoses = json.loads(artifact.path("diagnosis.json").read_text(encoding="utf-8"))
    diversity = np.full(len(samples), np.nan, np.float32)
    raters: dict[str, Curated] = {}
    heaps: dict[str, list[tuple[float, str, int, int, int]]] = {}
    believed: dict[str, tuple[float, int]] = {}
    columns = ["id", "rater", "raw_score", "score", "flagged", "confidence", "error_probability", "diversity"]
    if all("mean" in pq.read_schema(part).names for part in artifact.parts()):  # earlier curations have none
        columns.append("mean")
    for batch in artifact.batches(columns):
        positions = samples.positions(batch["id"], artifact)
        diversity[positions] = _filled(batch["diversity"])
        raw, score = (np.nan_to_num(_filled(batch[n]), nan=-1).astype(np.int8) for n in ("raw_score", "score"))
        flagged = batch["flagged"].to_numpy(zero_copy_only=False).astype(bool)
        said = _filled(batch["confidence"])
        confidence = np.nan_to_num(said, nan=-1.0)
        wrong = _filled(batch["error_probability"])
        means = _filled(batch["mean"]) if "mean" in columns else np.full(len(batch), np.nan)
        names = np.array(batch["rater"].to_pylist(), dtype=object)
        for name in dict.fromkeys(names):
            if name not in raters:
                empty = np.full(len(samples), -1, np.int8)
                known = diagnoses.get(name, {})
                flags, nothing = np.zeros(len(samples), bool), np.full(len(samples), np.nan, np.float32)
                raters[name] = Curated(name, empty, empty.copy(), flags, nothing, nothing.copy(), known)
                heaps[name], believed[name] = [], (0.0, 0)
            rows = np.flatnonzero(names == name)
            raters[name].raw[positions[rows]] = raw[rows]
            raters[name].score[positions[rows]] = score[rows]
            raters[name].flagged[positions[rows]] = flagged[rows]
            raters[name].confidence[positions[rows]] = said[rows]
            raters[name].mean[positions[rows]] = means[rows]
            asked = rows[(raw[rows] >= 0) & np.isfinite(wrong[rows])]
            total, number = believed[name]
            believed[name] = total + float((1 - wrong[asked]).sum()), number + len(asked)
            changed = rows[(raw[rows] >= 0) & (score[rows] >= 0) & (raw[rows] != score[rows])]
            likely = changed[np.argsort(-confidence[changed], kind="stable")]
            # More rows may share the last kept confidence: they are kept too, so that ids break the tie.
            if 0 < examples < len(likely):
                likely = likely[confidence[likely] >= confidence[likely[examples - 1]]]
            found = [
                (-float(confidence[r]), batch["id"][int(r)].as_py(), int(positions[r]), int(raw[r]), int(score[r]))
                for r in likely
            ]
            heaps[name] = heapq.nsmallest(examples, [*heaps[name], *found])
    for name, (total, number) in believed.items():
        raters[name].believed = total / number if number else None
    near = _neighbors(artifact)
    for name, heap in heaps.items():
        raters[name].top = [
            TopCorrection(id_, position, raw, score, -minus if minus <= 0 else None, near.get((name, id_), ()))
            for minus, id_, position, raw, score in heap
        ]
    return Curation(artifact, raters, diversity)


def _neighbors(artifact: Artifact) -> dict[tuple[str, str], tuple[Neighbor, ...]]:
    """The neighbours of the samples with the most confident corrections, by rater and id."""
    return {
        (row["rater"], row["id"]): tuple(Neighbor(n["id"], n["raw_score"], n["distance"]) for n in row["neighbors"])
        for row in pq.read_table(artifact.path("corrections.parquet")).to_pylist()
    }


def _filled(column: Any) -> NDArray[np.float64]:
    """A nullable Arrow column as float64, NaN for null."""
    values: NDArray[np.float64] = column.cast("float64").to_numpy(zero_copy_only=False)
    return values
