"""Curation against what people said: samples whose quality people judged, with known noise or a model's ratings.

    python benchmarks/human_truth.py FILE.jsonl            # noise drawn from a known transition matrix
    python benchmarks/human_truth.py FILE.jsonl --rate     # and the ratings of a small language model

FILE has instruction, input, output and human_quality (0 to 1) a line, as made from OASST1's validation split. The
models are the demo's (`make demo` prepares them). Prints Markdown tables and writes benchmarks/results/human_truth.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy.stats import spearmanr

from tamis.core.artifacts import Artifact
from tamis.curation import exact, rounds
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
SEEDS = range(5)
MODES = {
    "exact": lambda *arrays, seed: exact.curate(*arrays, seed=seed),
    "exact, confidence 0.5": lambda *arrays, seed: exact.curate(*arrays, confidence=0.5, seed=seed),
    "paper": lambda *arrays, seed: rounds.curate(*arrays, seed=seed),
    "reference": lambda *arrays, seed: rounds.curate(*arrays, doubled=True, seed=seed),
}


def classes_of(quality: np.ndarray) -> np.ndarray:
    """Score classes 0..5 of qualities 0..1: as a rating 1..10, then compressed as ratings are."""
    return np.clip(np.floor(1 + 9 * quality + 0.5), 4, 9).astype(np.int8) - 4


def prepare(file: Path, work: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True classes (n,) with -1 where people gave none, and the graph, through the stages that a run uses."""
    source = {"name": "people", "path": str(file), "schema": "instruction", "keep": ["human_quality"]}
    make_pool(PoolSettings.model_validate({"sources": [source]}), out=work / "pool")
    embed(EmbeddingSettings(model=str(MODELS / "minilm")), pool=work / "pool", out=work / "embedding")
    find_neighbors(NeighborsSettings(), embeddings=work / "embedding", out=work / "neighbors")
    fields = Artifact.open(work / "pool", "pool").table(["metadata"])["metadata"].to_pylist()
    found = [json.loads(text or "{}").get("human_quality") for text in fields]
    quality = np.array([np.nan if value is None else value for value in found])
    true = np.where(np.isnan(quality), -1, classes_of(np.nan_to_num(quality))).astype(np.int8)
    return true, *(np.load(work / "neighbors" / name) for name in ("indices.npy", "distances.npy"))


def figures(true: np.ndarray, raw: np.ndarray, score: np.ndarray) -> tuple[float, ...]:
    """Of the samples with truth: share right, mean absolute error, rank correlation, each before and after."""
    known = (true >= 0) & (raw >= 0)
    pairs = [(raw[known].astype(int), true[known].astype(int)), (score[known].astype(int), true[known].astype(int))]
    return (
        *(float((s == t).mean()) for s, t in pairs),
        *(float(np.abs(s - t).mean()) for s, t in pairs),
        *(float(spearmanr(s, t).statistic) for s, t in pairs),
    )


def f1(true: np.ndarray, raw: np.ndarray, flagged: np.ndarray) -> float:
    known = (true >= 0) & (raw >= 0)
    wrong = (true != raw) & known
    return 2 * float((flagged & wrong).sum()) / max(1, int((flagged & known).sum() + wrong.sum()))


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


HEAD = ["mode", "flagged", "F1", "right, raw", "after", "error, raw", "after", "correlation, raw", "after"]


def injected(true: np.ndarray, graph: tuple[np.ndarray, np.ndarray]) -> str:
    sys.path.insert(0, str(ROOT))
    from tests.unit.curation.pools import T, draw_ratings

    rows = []
    for mode, curate in MODES.items():
        values, errors = [], []
        for seed in SEEDS:
            raw = np.where(true < 0, -1, draw_ratings(np.maximum(true, 0), T, np.random.default_rng(seed)))
            raw = raw.astype(np.int8)
            result = curate(raw, *graph, seed=seed)
            values.append(
                (float(result.flagged.mean()), f1(true, raw, result.flagged), *figures(true, raw, result.score))
            )
            errors.append(float(np.abs(np.array(result.diagnosis["T"]) - T).mean()))
        rows.append([mode, *(f"{value:.3f}" for value in np.mean(values, axis=0)), f"{np.mean(errors):.3f}"])
    return table([*HEAD, "T error"], rows)


def rated(true: np.ndarray, graph: tuple[np.ndarray, np.ndarray], work: Path) -> str:
    backend = {"kind": "transformers", "model": str(MODELS / "smollm2"), "max_sample_tokens": 256}
    settings: dict[str, Any] = {"name": "smollm2", "backend": backend}
    rate(RatingSettings.model_validate(settings), pool=work / "pool", out=work / "ratings")
    parts = sorted((work / "ratings").glob("*.parquet"))
    overall = np.concatenate([pq.read_table(part)["overall"].to_numpy(zero_copy_only=False) for part in parts])
    raw = np.where(np.isnan(overall), -1, np.clip(np.nan_to_num(overall), 4, 9) - 4).astype(np.int8)
    rows = []
    for mode, curate in MODES.items():
        result = curate(raw, *graph, seed=0)
        values = (float(result.flagged.mean()), f1(true, raw, result.flagged), *figures(true, raw, result.score))
        rows.append([mode, *(f"{value:.3f}" for value in values)])
    return table(HEAD, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rate", action="store_true", help="have the demo's language model rate the samples too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        true, *graph = prepare(options.file, work)
        known = true >= 0
        share = np.bincount(true[known], minlength=6) / known.sum()
        near = true[graph[0][known][:, :10]]
        agree = [float((near[:, j] == true[known])[near[:, j] >= 0].mean()) for j in range(10)]
        parts = [
            "# Curation against human judgement",
            f"{len(true):,} samples, {int(known.sum()):,} with a human quality. Shares of the six classes: "
            f"{', '.join(f'{s:.2f}' for s in share)}. A sample's nearest neighbour has its very class in "
            f"{agree[0]:.1%} of the cases, the tenth in {agree[9]:.1%}; chance gives {float(share @ share):.1%}.",
            f"## Noise of a known T, mean of {len(SEEDS)} seeds",
            injected(true, tuple(graph)),
        ]
        if options.rate:
            parts += ["## Ratings of SmolLM2-135M-Instruct", rated(true, tuple(graph), work)]
    text = "\n\n".join(parts) + "\n"
    print(text)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
