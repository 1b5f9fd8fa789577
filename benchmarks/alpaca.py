"""Curation of the 52,002 samples of Stanford Alpaca with three models' ratings; a rater that was held out is the judge.

    python benchmarks/alpaca.py FOLDER                  # all samples, every call of curation twice
    python benchmarks/alpaca.py FOLDER --samples 5000   # a try; the results file is not written

FOLDER has alpaca_52002.parquet (instruction, input, output, and a column of classes 0..5 per rater) and
alpaca_52002_minilm.npy, its samples' MiniLM embeddings. Prints Markdown tables and writes them to
benchmarks/results/alpaca.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from curation import exact_graph
from scipy.stats import rankdata
from tables import processor, table

from tamis.curation import curate, rounds
from tamis.curation.diversity import diversity_scores
from tamis.curation.result import Curated
from tamis.neighbors.vectors import Vectors

RESULTS = Path(__file__).resolve().parent / "results/alpaca.md"
RATERS = {
    "gpt-4o-mini": "gpt_4o_mini",
    "llama-3.1-8b": "llama_3_1_8b_instruct",
    "mistral-7b": "mistral_7b_v0_3_instruct",
}
LENGTHS = ("log length of the question", "log length of the answer")
FOLDS, ALPHAS = 5, (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
OWN = 0.35  # weight of the own rating beside the regression's
RATED, TOP, NEAREST = 0.1, 0.1, 20
SEED = 0
PUBLISHED = "16,513 of GPT-4o-mini's at confidence 0.3 (the paper's code on these samples, with its own embeddings)"


@dataclass
class Pool:
    """The samples, their graph, and a record of every call of curation.

    Attributes:
        ratings: (n, 3) classes, -1 where there is none.
        vectors: (n, d).
        lengths: (n, 2) log numbers of characters of question and answer.
        indices, distances: the graph.
        calls: name, seconds, and whether a second run gave the same bytes.
    """

    ratings: np.ndarray
    vectors: np.ndarray
    lengths: np.ndarray
    indices: np.ndarray
    distances: np.ndarray
    calls: list[list[str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ratings)

    @cached_property
    def answer(self) -> np.ndarray:
        return self.lengths[:, 1]

    @cached_property
    def alone(self) -> dict[str, Curated]:
        """Each rater curated by itself from all of its ratings."""
        return {rater: self.curated(f"{rater} alone", self.ratings[:, r]) for r, rater in enumerate(RATERS)}

    def curated(self, name: str, ratings: np.ndarray, **options: Any) -> Curated:
        """With all that is known of the samples."""
        work = partial(
            curate,
            ratings,
            self.indices,
            self.distances,
            embeddings=self.vectors,
            covariates=self.lengths,
            covariate_names=LENGTHS,
            **options,
        )
        return self.twice(name, work)

    def twice(self, name: str, work: Callable[[], Curated]) -> Curated:
        start = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - start
        self.calls.append([name, f"{seconds:.1f}", "yes" if checksum(result) == checksum(work()) else "NO"])
        return result


def checksum(result: Curated) -> str:
    parts = [
        result.score,
        result.flagged,
        result.suggested,
        result.confidence,
        result.error_probability,
        result.mean,
        result.posterior,
    ]
    found = hashlib.sha256(json.dumps(result.diagnosis).encode())
    for part in parts:
        if part is not None:
            found.update(part.tobytes())
    return found.hexdigest()


def read(folder: Path, samples: int | None) -> Pool:
    columns = ["instruction", "input", "output", *RATERS.values()]
    rows = pq.read_table(folder / "alpaca_52002.parquet", columns=columns)
    vectors = np.load(folder / "alpaca_52002_minilm.npy")
    chosen = np.arange(len(vectors))
    if samples is not None:
        chosen = np.sort(np.random.default_rng(SEED).permutation(len(vectors))[:samples])
    texts = [[text or "" for text in rows[name].to_pylist()] for name in columns[:3]]
    questions = [len(one) + len(other) for one, other in zip(*texts[:2], strict=True)]
    lengths = np.log1p(np.array([questions, [len(text) for text in texts[2]]], np.float64)).T
    ratings = np.stack([rows[name].to_numpy() for name in RATERS.values()], 1)
    vectors = vectors[chosen]
    return Pool(ratings[chosen], vectors, lengths[chosen], *exact_graph(Vectors(vectors)))


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, of the places where both are known."""
    known = np.isfinite(one) & np.isfinite(other)
    return float(np.corrcoef(rankdata(one[known]), rankdata(other[known]))[0, 1])


def partly(one: np.ndarray, other: np.ndarray, given: np.ndarray) -> float:
    """Spearman's partial correlation."""
    known = np.isfinite(one) & np.isfinite(other)
    ab, ac, bc = (correlation(x[known], y[known]) for x, y in ((one, other), (one, given), (other, given)))
    return (ab - ac * bc) / float(np.sqrt((1 - ac**2) * (1 - bc**2)))


def known_only(ratings: np.ndarray) -> np.ndarray:
    return np.where(ratings < 0, np.nan, ratings.astype(np.float64))


def ridge(features: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(n,) predictions: of samples with a target out of fold, of the others by all; alpha is chosen out of fold."""
    n = len(target)
    X = np.column_stack([features.astype(np.float64), np.ones(n)])
    known = np.isfinite(target)
    fold = np.random.default_rng(SEED).integers(0, FOLDS, n)
    center = target[known].mean()
    y = np.where(known, target - center, 0)
    parts = [X[known & (fold == f)] for f in range(FOLDS)]
    grams = [part.T @ part for part in parts]
    moments = [part.T @ y[known & (fold == f)] for f, part in enumerate(parts)]
    penalty = np.ones(X.shape[1])
    penalty[-1] = 1e-6

    def weights(gram: np.ndarray, moment: np.ndarray, alpha: float) -> np.ndarray:
        return np.linalg.solve(gram + alpha * np.diag(penalty), moment)

    best = (np.inf, 0.0, np.zeros(n))
    for alpha in ALPHAS:
        predicted = np.zeros(n)
        for f in range(FOLDS):
            rows = known & (fold == f)
            predicted[rows] = X[rows] @ weights(sum(grams) - grams[f], sum(moments) - moments[f], alpha)
        best = min(best, (float(((predicted - y)[known] ** 2).mean()), alpha, predicted), key=lambda one: one[0])
    _, alpha, predicted = best
    predicted[~known] = X[~known] @ weights(sum(grams), sum(moments), alpha)
    return predicted + center


def with_lengths(pool: Pool) -> np.ndarray:
    scaled = (pool.lengths - pool.lengths.mean(0)) / pool.lengths.std(0)
    return np.column_stack([pool.vectors.astype(np.float64), scaled])


def nearest_mean(vectors: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """(n,) mean of the nearest samples that have a rating in `shown`."""
    unit = vectors.astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    rated = np.flatnonzero(shown >= 0)
    means = np.empty(len(unit))
    for start in range(0, len(unit), 4096):
        cosines = unit[start : start + 4096] @ unit[rated].T
        near = np.argpartition(-cosines, NEAREST, axis=1)[:, :NEAREST]
        means[start : start + 4096] = shown[rated][near].mean(1)
    return means


def top(pool: Pool, values: np.ndarray) -> np.ndarray:
    """The best tenth; between equals the more diverse."""
    order = np.lexsort((-diversity_scores(pool.distances), -np.nan_to_num(values, nan=-1.0)))
    return order[: int(TOP * len(pool))]


def held_out(pool: Pool) -> str:
    names = list(RATERS)
    features = with_lengths(pool)
    rows = []
    for r, rater in enumerate(names):
        truth = known_only(pool.ratings[:, r])
        others = [other for other in range(len(names)) if other != r]
        given = pool.ratings[:, others]
        mean = np.nanmean(known_only(given), axis=1)
        regression = ridge(pool.vectors, mean)
        result = pool.curated(f"{' and '.join(names[other] for other in others)}", given)
        candidates = [
            *(known_only(pool.ratings[:, other]) for other in others),
            mean,
            regression,
            ridge(features, mean),
            OWN * mean + regression,
            known_only(result.score),
            result.means().astype(np.float64),
        ]
        cells = [f"{correlation(one, truth):.3f} ({partly(one, truth, pool.answer):.3f})" for one in candidates]
        rows.append([rater, *cells, "yes" if result.diagnosis["explained"] else "no"])
    head = [
        "held out",
        "first other, raw",
        "second other, raw",
        "mean of both, raw",
        "ridge",
        "ridge + log lengths",
        "mean + ridge",
        "curated score",
        "curated `mean`",
        "explained",
    ]
    return (
        "## A rater that was held out\n\nSpearman's correlation with the ratings of the rater held out, which nothing "
        "has seen, of what the two others say; in brackets the partial correlation given the answer's log length, for "
        "all raters reward length. `ridge`: regression of the mean of both on the embedding, five folds, each sample "
        f"predicted by the others, the penalty chosen by these predictions. `mean + ridge`: {OWN} x mean + ridge. "
        "Other raters stand in the order of the rows. Curation knows the embedding and the log lengths.\n\n"
        + table(head, rows)
    )


def tenth(pool: Pool) -> str:
    features = with_lengths(pool)
    rows = []
    for r, rater in enumerate(RATERS):
        truth = pool.ratings[:, r]
        rated = np.flatnonzero(truth >= 0)
        shown = np.full_like(truth, -1)
        some = np.random.default_rng(SEED).permutation(rated)[: int(RATED * len(rated))]
        shown[some] = truth[some]
        hidden = (truth >= 0) & (shown < 0)
        result = pool.curated(f"{rater}, a tenth rated", shown, fill_missing=True)
        target = known_only(shown)
        means = result.means().astype(np.float64)
        long = ridge(features, target)
        candidates = [ridge(pool.vectors, target), long, nearest_mean(pool.vectors, shown), means]
        best = top(pool, pool.alone[rater].means())
        picked = [
            f"{len(np.intersect1d(top(pool, one), best)) / len(best):.3f}"
            for one in (np.where(shown >= 0, target, long), means)
        ]
        explained = "yes" if result.diagnosis["explained"] else "no"
        cells = [
            f"{correlation(one[hidden], truth[hidden].astype(float)):.3f}" if np.isfinite(one[hidden]).any() else ""
            for one in candidates
        ]
        rows.append([rater, *cells, *picked, explained])
    head = [
        "rater",
        "ridge",
        "ridge + log lengths",
        f"mean of {NEAREST} nearest rated",
        "curated `mean`",
        "best tenth, ridge + log lengths",
        "best tenth, curated `mean`",
        "explained",
    ]
    return (
        f"## A tenth rated\n\n{RATED:.0%} of the samples, drawn at random, keep their rating. Spearman's correlation "
        "of what is predicted for the others with their hidden rating; and how much of the best tenth, picked by what "
        "these few ratings give, is also in the best tenth picked by `mean` from all of the rater's ratings curated "
        f"(by chance {TOP}).\n\n" + table(head, rows)
    )


def shares(values: list[float]) -> str:
    return " ".join(f"{value:.2f}".lstrip("0") for value in values)


def matrix(values: list[list[float]]) -> str:
    return "<br>".join(shares(row) for row in values)


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def all_rated(pool: Pool) -> str:
    results = {**pool.alone, "all three": pool.curated("all three", pool.ratings)}
    found, matrices, lengths = [], [], []
    for name, result in results.items():
        told = result.diagnosis
        interval = " to ".join(f"{value:.2f}" for value in told["own_share_interval"])
        found.append(
            [
                name,
                "yes" if told["explained"] else "no",
                f"{told['own_share']:.2f}",
                interval,
                f"{told['counts']['flagged']:,}",
                f"{told['counts']['corrected']:,}",
                number(told["shared_errors"]),
                number(told["regression"]["explained_variance"]),
                "; ".join(told["reasons"]),
            ]
        )
        by_rater = [(name, told["T"])] if name in RATERS else zip(RATERS, told["T_by_rater"], strict=True)
        matrices += [[f"{rater}{'' if name in RATERS else ', of three'}", matrix(T)] for rater, T in by_rater]
        if name not in RATERS:
            matrices.append(["errors shared by all", matrix(told["T_shared"])])
        states = (known_only(result.raw), known_only(result.score), result.means().astype(np.float64))
        lengths.append([name, *(f"{correlation(state, pool.answer):.3f}" for state in states)])
    pairs = []
    for a, one in enumerate(RATERS):
        for other in list(RATERS)[a + 1 :]:
            first, second = pool.alone[one], pool.alone[other]
            states = (
                (known_only(first.raw), known_only(second.raw)),
                (known_only(first.score), known_only(second.score)),
                (first.means().astype(np.float64), second.means().astype(np.float64)),
            )
            pairs.append([f"{one} and {other}", *(f"{correlation(*state):.3f}" for state in states)])
    head = [
        "ratings",
        "explained",
        "own share",
        "95 %",
        "flagged",
        "corrected",
        "shared errors",
        "variance explained by regression",
        "why nothing was corrected",
    ]
    return "\n\n".join(
        [
            "## All ratings, each rater alone and all together",
            "`own share`: of samples whose quality is not their neighbourhood's. `shared errors`: share of samples "
            "that all raters see alike as another class.",
            table(head, found),
            "Transition matrices (rows true, columns rated):",
            table(["ratings", "T"], matrices),
            "Spearman's correlation between raters, each curated by itself:",
            table(["raters", "raw", "curated score", "curated `mean`"], pairs),
            "Spearman's correlation with the answer's log length:",
            table(["ratings", "raw", "curated score", "curated `mean`"], lengths),
        ]
    )


def modes(pool: Pool) -> str:
    rows = []
    for r, rater in enumerate(RATERS):
        arrays = (pool.ratings[:, r], pool.indices, pool.distances)
        found = {
            "exact": pool.alone[rater],
            "exact, clusterable": pool.curated(f"{rater} alone, clusterable", arrays[0], assume="clusterable"),
        }
        for mode in ("paper", "reference"):
            for confidence in (0.5, 0.3):
                work = partial(rounds.curate, *arrays, doubled=mode == "reference", confidence=confidence, seed=SEED)
                name = mode if confidence == 0.5 else f"{mode}, confidence {confidence}"
                found[name] = pool.twice(f"{rater} alone, {name}", work)
        counts = found["exact"].diagnosis["counts"]
        rows.append([rater, "as rated", "", "", " ".join(f"{count:,}" for count in counts["raw_by_class"])])
        for name, result in found.items():
            counts = result.diagnosis["counts"]
            by_class = " ".join(f"{count:,}" for count in counts["curated_by_class"])
            rows.append([rater, name, f"{counts['flagged']:,}", f"{counts['corrected']:,}", by_class])
    head = ["rater", "mode", "flagged", "corrected", "samples by class 0..5 afterwards"]
    return f"## Corrections by mode\n\nPublished: {PUBLISHED}.\n\n" + table(head, rows)


def times(pool: Pool) -> str:
    return "## Seconds, and whether a second run gave the same bytes\n\n" + table(
        ["ratings", "seconds", "same bytes"], pool.calls
    )


def sections(pool: Pool) -> Iterator[str]:
    for section in (held_out, tenth, all_rated, modes, times):
        yield section(pool)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=int, help="so many, drawn at random; the results file is not written")
    options = parser.parse_args()
    start = time.perf_counter()
    pool = read(options.folder, options.samples)
    parts = [
        f"# {len(pool):,} samples of Stanford Alpaca, three raters\n\n{os.cpu_count()} cores, {processor()}, numpy "
        f"{np.__version__}. Texts, embeddings and the graph of {pool.indices.shape[1]} neighbours: "
        f"{time.perf_counter() - start:.0f} s."
    ]
    print(parts[0], flush=True)
    for section in sections(pool):
        print(f"\n{section}", flush=True)
        parts.append(section)
        if options.samples is None:
            RESULTS.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
