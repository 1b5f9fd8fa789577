"""Curation against what people said: samples whose quality people judged, with known noise or a model's ratings.

    python benchmarks/human_truth.py FILE.jsonl            # noise drawn from a known transition matrix
    python benchmarks/human_truth.py FILE.jsonl --rate     # and the ratings of a small language model
    python benchmarks/human_truth.py FILE.jsonl --samples 400   # a try; the results file is not written

FILE has instruction, input, output and human_quality (0 to 1) a line, as made from OASST1's validation split. The
models are the demo's (`make demo` prepares them). Prints Markdown tables and writes benchmarks/results/human_truth.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy.stats import spearmanr
from tables import table

from tamis.core.artifacts import Artifact
from tamis.curation import curate, rounds
from tamis.curation.result import Curated
from tamis.embedding.settings import EmbeddingSettings
from tamis.embedding.stage import run as embed
from tamis.neighbors.settings import NeighborsSettings
from tamis.neighbors.stage import run as find_neighbors
from tamis.pool.settings import PoolSettings
from tamis.pool.stage import run as make_pool
from tamis.rating.settings import RatingSettings
from tamis.rating.stage import run as rate

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "build/demo/models"
RESULTS = ROOT / "benchmarks/results/human_truth.md"
SEEDS = range(1, 6)
GRADED = 100
SURE = 2.0  # standard errors from which a loss counts as harm


@dataclass(frozen=True)
class People:
    """Samples with true classes (n,), -1 where people gave none, their vectors (n, d) and graph."""

    true: np.ndarray
    vectors: np.ndarray
    indices: np.ndarray
    distances: np.ndarray

    def grades(self, seed: int) -> np.ndarray:
        """(n,) the true classes of some samples, drawn at random; -1 elsewhere."""
        chosen = np.random.default_rng(100 + seed).permutation(np.flatnonzero(self.true >= 0))[:GRADED]
        grades = np.full(len(self.true), -1, np.int8)
        grades[chosen] = self.true[chosen]
        return grades

    def exact(self, ratings: np.ndarray, seed: int, *, graded: bool = False, **options: Any) -> Curated:
        grades = self.grades(seed) if graded else None
        return curate(ratings, self.indices, self.distances, embeddings=self.vectors, grades=grades, **options)

    def rounds(self, ratings: np.ndarray, seed: int, **options: Any) -> Curated:
        return rounds.curate(ratings, self.indices, self.distances, seed=seed, **options)


Mode = Callable[[People, np.ndarray, int], Curated]
BY_GRADES = f"exact, {GRADED} grades"
MODES: dict[str, Mode] = {
    "exact": lambda people, ratings, seed: people.exact(ratings, seed),
    "exact, confidence 0.5": lambda people, ratings, seed: people.exact(ratings, seed, confidence=0.5),
    BY_GRADES: lambda people, ratings, seed: people.exact(ratings, seed, graded=True),
    "paper": lambda people, ratings, seed: people.rounds(ratings, seed),
    "reference": lambda people, ratings, seed: people.rounds(ratings, seed, doubled=True),
}
OF_SEVERAL = ("exact", BY_GRADES)


def classes_of(quality: np.ndarray) -> np.ndarray:
    """Score classes 0..5 of qualities 0..1: as a rating 1..10, then compressed as ratings are."""
    return np.clip(np.floor(1 + 9 * quality + 0.5), 4, 9).astype(np.int8) - 4


def prepare(file: Path, work: Path) -> People:
    """Through the stages that a run uses."""
    source = {"name": "people", "path": str(file), "schema": "instruction", "keep": ["human_quality"]}
    make_pool(PoolSettings.model_validate({"sources": [source]}), out=work / "pool")
    embed(EmbeddingSettings(model=str(MODELS / "minilm")), pool=work / "pool", out=work / "embedding")
    find_neighbors(NeighborsSettings(), embeddings=work / "embedding", out=work / "neighbors")
    fields = Artifact.open(work / "pool", "pool").table(["metadata"])["metadata"].to_pylist()
    found = [json.loads(text or "{}").get("human_quality") for text in fields]
    quality = np.array([np.nan if value is None else value for value in found])
    true = np.where(np.isnan(quality), -1, classes_of(np.nan_to_num(quality))).astype(np.int8)
    names = ("embedding/vectors.npy", "neighbors/indices.npy", "neighbors/distances.npy")
    return People(true, *(np.load(work / name) for name in names))


def figures(true: np.ndarray, raw: np.ndarray, result: Curated) -> tuple[float, ...]:
    """Of the samples with truth and rating, as `HEAD` has them; `true` is -1 where a grade was given."""
    known = (true >= 0) & (raw >= 0)
    t = true[known].astype(int)
    pairs = [raw[known].astype(int), result.score[known].astype(int)]
    right, error = ([(s == t) * 1.0 for s in pairs], [np.abs(s - t) * 1.0 for s in pairs])
    mean = result.means()[known]
    return (
        float(result.flagged[known].mean()),
        f1(true, raw, result.flagged),
        *(float(one.mean()) for one in right),
        *(float(one.mean()) for one in error),
        *(float(spearmanr(s, t).statistic) for s in (*pairs, mean)),
        float(lost(right[0] - right[1]) or lost(error[1] - error[0])),
    )


def lost(losses: np.ndarray) -> bool:
    """Whether the mean of the samples' losses is above 0 beyond chance."""
    return float(losses.mean()) > SURE * float(losses.std()) / np.sqrt(len(losses))


def f1(true: np.ndarray, raw: np.ndarray, flagged: np.ndarray) -> float:
    known = (true >= 0) & (raw >= 0)
    wrong = (true != raw) & known
    return 2 * float((flagged & wrong).sum()) / max(1, int((flagged & known).sum() + wrong.sum()))


HEAD = [
    "scores",
    "flagged",
    "F1",
    "right, raw",
    "after",
    "error, raw",
    "after",
    "correlation, raw",
    "after",
    "of `mean`",
    "seeds with harm",
]


def row(people: People, name: str, mode: str, ratings: Callable[[int], np.ndarray]) -> tuple[list[str], list[Curated]]:
    """The means over all seeds, and what curation gave with each."""
    values, results = [], []
    for seed in SEEDS:
        result = MODES[mode](people, ratings(seed), seed)
        rest = np.where(people.grades(seed) >= 0, -1, people.true) if "grades" in mode else people.true
        values.append(figures(rest, result.raw, result))
        results.append(result)
    *means, harmed = np.mean(values, axis=0)
    cells = [f"{value:.3f}" for value in means]
    return [name, *cells, f"{round(harmed * len(SEEDS))} of {len(SEEDS)}"], results


def injected(people: People) -> str:
    sys.path.insert(0, str(ROOT))
    from tests.unit.curation.pools import T, draw_ratings

    def drawn(seed: int, raters: int = 1) -> np.ndarray:
        rng = np.random.default_rng(seed)
        given = [draw_ratings(np.maximum(people.true, 0), T, rng) for _ in range(raters)]
        ratings = np.where(people.true[:, None] < 0, -1, np.stack(given, 1)).astype(np.int8)
        return ratings if raters > 1 else ratings[:, 0]

    rows = []
    for raters, modes in ((1, tuple(MODES)), (3, OF_SEVERAL)):
        for mode in modes:
            name = mode if raters == 1 else f"{raters} raters, {mode}"
            cells, results = row(people, name, mode, lambda seed, raters=raters: drawn(seed, raters))
            found = [result.diagnosis.get("T_by_rater", [result.diagnosis["T"]]) for result in results]
            error = np.mean([np.abs(np.array(T_r) - T).mean() for matrices in found for T_r in matrices])
            rows.append([*cells, f"{error:.3f}"])
    return table([*HEAD, "T error"], rows)


def rated(people: People, work: Path) -> str:
    backend = {"kind": "transformers", "model": str(MODELS / "smollm2"), "max_sample_tokens": 256}
    settings: dict[str, Any] = {"name": "smollm2", "backend": backend}
    rate(RatingSettings.model_validate(settings), pool=work / "pool", out=work / "ratings")
    parts = sorted((work / "ratings").glob("*.parquet"))
    overall = np.concatenate([pq.read_table(part)["overall"].to_numpy(zero_copy_only=False) for part in parts])
    raw = np.where(np.isnan(overall), -1, np.clip(np.nan_to_num(overall), 4, 9) - 4).astype(np.int8)
    return table(HEAD, [row(people, mode, mode, lambda _: raw)[0] for mode in MODES])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rate", action="store_true", help="have the demo's language model rate the samples too")
    parser.add_argument("--samples", type=int, help="only the first so many; the results file is not written")
    options = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        file = options.file
        if options.samples is not None:
            file = work / "first.jsonl"
            lines = options.file.read_text(encoding="utf-8").splitlines(keepends=True)
            file.write_text("".join(lines[: options.samples]), encoding="utf-8")
        people = prepare(file, work)
        true, known = people.true, people.true >= 0
        share = np.bincount(true[known], minlength=6) / known.sum()
        near = true[people.indices[known][:, :10]]
        agree = [float((near[:, j] == true[known])[near[:, j] >= 0].mean()) for j in range(10)]
        parts = [
            "# Curation against human judgement",
            f"{len(true):,} samples, {int(known.sum()):,} with a human quality. Shares of the six classes: "
            f"{', '.join(f'{s:.2f}' for s in share)}. A sample's nearest neighbour has its very class in "
            f"{agree[0]:.1%} of the cases, the tenth in {agree[9]:.1%}; chance gives {float(share @ share):.1%}.",
            f"`exact` knows the embeddings. With grades, {GRADED} samples that are drawn at random have their true "
            "class given, and all figures are of the others. Raw scores of three raters are their mean, rounded. A "
            "seed counts as harm where the share of right scores falls or the mean error grows by more than "
            f"{SURE:.0f} standard errors.",
            f"## Noise of a known T, mean of {len(SEEDS)} seeds",
            injected(people),
        ]
        if options.rate:
            parts += ["## Ratings of SmolLM2-135M-Instruct", rated(people, work)]
    text = "\n\n".join(parts) + "\n"
    print(text)
    print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)
    if options.samples is None:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
