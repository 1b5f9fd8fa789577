"""Speed, memory and accuracy of the neighbour graph and of curation.

    python benchmarks/curation.py            # all but the largest
    python benchmarks/curation.py --large    # 52,000 x 384 with three raters and 300,000 x 384 too
    python benchmarks/curation.py --quick    # a look, in a minute

Prints Markdown tables and writes them to benchmarks/results/curation.md. Each size runs in a process of its own, so
that peak memory is its own; the plain matrix product of the same shapes runs in the same process, before and after.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks/results/curation.md"
SIZES = [(2_000, 64), (10_000, 128), (30_000, 384)]
LARGE, RATERS = (52_000, 384), 3
HUGE = (300_000, 384)  # by approximate search
SCALING = [10_000, 30_000, 100_000, 300_000]
SEEDS = (1001, 1002, 1003, 1004, 1005)
K, MEMORY = 32, 2048 << 20
POOLS: dict[str, dict[str, Any]] = {
    "clusters of 20": {},
    "a tenth unlike their cluster": {"foreign": 0.1},
    "clusters of 8": {"size": 8},
    "2,000 samples": {"n": 2000, "d": 64},
}


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def product_rate(unit: np.ndarray, block: int = 2048) -> float:
    """Billion multiply-adds per second of plain float32 products of the search's own blocks, all pairs once."""
    out = np.empty((block, block), np.float32)
    seconds, done = 0.0, 0
    starts = range(0, len(unit) - block + 1, block) if len(unit) >= block else [0]
    for first in starts:
        for second in starts:
            a, b = unit[first : first + block], unit[second : second + block]
            seconds += timed(lambda a=a, b=b: np.matmul(a, b.T, out=out[: len(a), : len(b)]))[0]
            done += len(a) * len(b) * unit.shape[1]
            if seconds > 10:
                return done / seconds / 1e9
    return done / seconds / 1e9


def torch_rate(unit: np.ndarray, block: int = 2048) -> float:
    import torch

    a, b = torch.from_numpy(unit[:block]), torch.from_numpy(unit[-block:])
    torch.mm(a, b.T)
    seconds = min(timed(lambda: torch.mm(a, b.T))[0] for _ in range(10))
    return len(a) * len(b) * unit.shape[1] / seconds / 1e9


def measure(n: int, d: int) -> dict[str, float]:
    """One size: seconds by part, rates beside those of plain products, peak memory."""
    from tamis.curation import exact
    from tamis.neighbors import exact as search
    from tamis.neighbors import refine
    from tamis.neighbors.vectors import Vectors
    from tests.unit.curation.pools import make_vectors

    vectors, scores = make_vectors(n, d, seed=7)
    held = Vectors(vectors.astype(np.float16))
    unit = held.unit(0, n)
    rates, by_torch = [product_rate(unit)], torch_rate(unit)
    found: dict[str, float] = {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found["candidates"], (cosines, candidates) = timed(lambda: search.candidates(held, K + refine.SPARE, MEMORY))
    found["refine"], (indices, distances, _) = timed(lambda: refine.neighbors_of(held, candidates, K, cosines))
    rates.append(product_rate(unit))
    found["curate"], _ = timed(lambda: exact.curate(scores, indices, distances))
    found["graph"] = found["candidates"] + found["refine"]
    found["total"] = found["graph"] + found["curate"]
    found["plain"], found["torch"] = float(np.mean(rates)), by_torch
    found["rate"] = n * n * d / found["graph"] / 1e9
    found["share"] = found["rate"] / found["plain"]
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found["before_mib"] = before / 1024
    return found


def measure_curation(n: int) -> dict[str, float]:
    """Curation alone, by part; every sample's neighbours are the nearest of its own cluster's surroundings."""
    from tamis.curation import exact, mixture, transition
    from tamis.curation.consensus import consensus
    from tamis.curation.neighborhoods import Neighborhoods
    from tests.unit.curation.pools import make_local

    scores, indices, distances = make_local(n, K, seed=7)
    view = Neighborhoods(scores, indices, distances, None)
    found: dict[str, float] = {}
    found["consensus"], _ = timed(lambda: consensus(view, 6))
    found["em_k"], start = timed(lambda: transition.from_neighbors(view, 6, 5))
    rows = view.sample(50_000)
    found["bins"], bins = timed(lambda: mixture.Bins(view, rows, K))
    found["fit"], model = timed(lambda: mixture.fit(view, rows, mixture.start_from(view, bins, start.T, start.p, K)))
    found["posterior"], _ = timed(lambda: list(model.evidence(view, np.arange(n))))
    found["curate"], _ = timed(lambda: exact.curate(scores, indices, distances))
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def exact_graph(held: Any) -> tuple[np.ndarray, np.ndarray]:
    from tamis.neighbors import exact as search
    from tamis.neighbors import refine

    cosines, candidates = search.candidates(held, K + refine.SPARE, MEMORY)
    return refine.neighbors_of(held, candidates, K, cosines)[:2]


def measure_graph(n: int, d: int) -> dict[str, float]:
    """The exact graph alone."""
    from tamis.neighbors.vectors import Vectors
    from tests.unit.curation.pools import make_vectors

    held = Vectors(make_vectors(n, d, seed=7)[0].astype(np.float16))
    seconds, _ = timed(lambda: exact_graph(held))
    return {"graph": seconds}


def measure_raters(n: int, d: int) -> dict[str, float]:
    """The graph once and curation of three raters on it."""
    from tamis.curation import exact
    from tamis.neighbors.vectors import Vectors
    from tests.unit.curation.pools import make_vectors

    vectors, scores = make_vectors(n, d, seed=7)
    held, random = Vectors(vectors.astype(np.float16)), np.random.default_rng(1)
    del vectors
    found: dict[str, float] = {"before_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    start = time.perf_counter()
    indices, distances = exact_graph(held)
    found["graph"] = time.perf_counter() - start
    for _ in range(RATERS):
        again = np.where(random.random(n) < 0.1, random.integers(0, 6, n), scores)
        exact.curate(again, indices, distances)
    found["total"] = time.perf_counter() - start
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def measure_approximate(n: int, d: int) -> dict[str, float]:
    """Approximate search with its recall, and curation on what it found."""
    from tamis.curation import exact
    from tamis.neighbors import approximate, refine
    from tamis.neighbors.settings import NeighborsSettings
    from tamis.neighbors.vectors import Vectors
    from tests.unit.curation.pools import make_vectors

    vectors, scores = make_vectors(n, d, seed=7)
    held = Vectors(vectors.astype(np.float16))
    del vectors
    settings = NeighborsSettings(method="approximate")
    found: dict[str, float] = {"before_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    found["search"], candidates = timed(lambda: approximate.candidates(held, K + refine.SPARE, settings))
    found["refine"], (indices, distances, _) = timed(lambda: refine.neighbors_of(held, candidates, K))
    found["recall"], shares = timed(lambda: approximate.recall(held, distances[:, :20], settings))
    found["curate"], _ = timed(lambda: exact.curate(scores, indices, distances))
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found | {name: float(share) for name, share in shares.items()}


MEASURES = {
    "parts": measure,
    "graph": measure_graph,
    "curation": measure_curation,
    "raters": measure_raters,
    "approximate": measure_approximate,
}


def measured(kind: str, *numbers: int) -> dict[str, float]:
    """One of `MEASURES` in a process of its own."""
    command = [sys.executable, __file__, "--measure", kind, *map(str, numbers)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def accuracy(mode: str, options: dict[str, Any], seed: int) -> tuple[float, ...]:
    """T error, prior error, F1 of flags, share right before and after, mean error, mean true score of the top tenth."""
    from tamis.curation import exact, rounds
    from tamis.curation.diversity import diversity_scores
    from tests.unit.curation.pools import make_pool

    pool = make_pool(**({"n": 10_000, "d": 128} | options), seed=seed)
    arrays = (pool.scores, pool.indices, pool.distances)
    result = (
        exact.curate(*arrays) if mode == "exact" else rounds.curate(*arrays, doubled=mode == "reference", seed=seed)
    )
    true_prior = np.bincount(pool.true, minlength=6) / len(pool.true)
    order = np.lexsort((-diversity_scores(pool.distances), -result.score.astype(int)))
    return (
        float(np.abs(np.array(result.diagnosis["T"]) - pool.realized()).mean()),
        float(np.abs(np.array(result.diagnosis["p"]) - true_prior).sum()),
        pool.f1(result.flagged),
        pool.right(pool.scores),
        pool.right(result.score),
        float(np.abs(result.score.astype(int) - pool.true).mean()),
        float(pool.true[order[: len(order) // 10]].mean()),
    )


def several_raters() -> str:
    n, d = LARGE
    f = measured("raters", n, d)
    return (
        f"## {n:,} x {d}, three raters\n\nThe graph once: {f['graph']:.1f} s; with the curation of {RATERS} raters "
        f"{f['total']:.1f} s. Peak memory {f['peak_mib']:.0f} MiB, of which the generated pool had taken "
        f"{f['before_mib']:.0f} before."
    )


def approximate_search() -> str:
    n, d = HUGE
    f, whole = measured("approximate", n, d), measured("graph", n, d)
    return (
        f"## {n:,} x {d}, approximate\n\nBuilding the index and searching {f['search']:.0f} s, exact distances of what "
        f"it found {f['refine']:.1f} s, measuring recall on {f['recall_sample']:.0f} samples {f['recall']:.1f} s, "
        f"curation of one rater {f['curate']:.1f} s. Recall@2 {f['recall_at_2']:.4f}, @10 {f['recall_at_10']:.4f}, @20 "
        f"{f['recall_at_20']:.4f}. Peak memory {f['peak_mib']:.0f} MiB, of which the generated pool had taken "
        f"{f['before_mib']:.0f} before.\n\nThe exact graph of the same pool: {whole['graph']:.0f} s. Each sample "
        "of it has about twenty near ones; what lies beyond is as good as random: the hardest case for an index."
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="52,000 x 384 and 300,000 x 384 too")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes and one seed; the results file is not written"
    )
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        kind, *numbers = options.measure
        print(json.dumps(MEASURES[kind](*map(int, numbers))))
        return

    sizes = SIZES[:2] if options.quick else [*SIZES, *([LARGE] if options.large else [])]
    seeds = SEEDS[:1] if options.quick else SEEDS
    parts = ["# Neighbour graph and curation", f"{os.cpu_count()} cores, {platform.machine()}, numpy {np.__version__}."]
    found = {size: measured("parts", *size) for size in sizes}
    names = ["candidates", "refine", "curate", "total"]
    head = ["pool", *names, "peak MiB", "of it before"]
    rows = [
        [f"{n:,} x {d}", *(f"{f[name]:.2f}" for name in names), f"{f['peak_mib']:.0f}", f"{f['before_mib']:.0f}"]
        for (n, d), f in found.items()
    ]
    parts += [
        "## Seconds by part\n\n`candidates` and `refine` are the graph; `curate` is the whole of exact curation, with "
        "its choice of k; `total` is graph and curation. `of it before`: the memory of the generated pool.",
        table(head, rows),
    ]
    head = ["pool", "graph, 10^9 multiply-adds/s", "plain sgemm (numpy)", "share", "torch sgemm"]
    rows = [
        [f"{n:,} x {d}", f"{f['rate']:.0f}", f"{f['plain']:.0f}", f"{f['share']:.2f}", f"{f['torch']:.0f}"]
        for (n, d), f in found.items()
    ]
    parts += [
        "## The graph against the matrix product alone\n\nThe graph is counted as all n x n x d multiply-adds; it "
        "computes half of them, for the cosine matrix is symmetric, so the share can exceed 1.",
        table(head, rows),
    ]
    if options.large:
        parts += several_raters(), approximate_search()
    names = ["consensus", "em_k", "bins", "fit", "posterior", "curate"]
    rows = []
    for n in SCALING[:2] if options.quick else SCALING:
        f = measured("curation", n)
        rows.append(
            [f"{n:,}", *(f"{f[name]:.2f}" for name in names), f"{1e6 * f['curate'] / n:.0f}", f"{f['peak_mib']:.0f}"]
        )
    parts += [
        "## Curation grows linearly (seconds)\n\n`curate` is all of it, with the choice of k; the parts before are "
        "shown once each. The model is fitted to 50,000 samples at most (`fit_samples`); all of them get a posterior.",
        table(["samples", *names, "µs per sample", "peak MiB"], rows),
    ]
    head = ["pool", "mode", "T error", "prior L1", "F1 flags", "right before", "right after", "mean error", "top 10 %"]
    rows = []
    for name, settings in POOLS.items():
        for mode in ("exact", "paper", "reference"):
            values = np.array([accuracy(mode, settings, seed) for seed in seeds])
            means, spread = values.mean(0), values.std(0)
            rows.append([name, mode, *(f"{m:.4f} ± {s:.4f}" for m, s in zip(means, spread, strict=True))])
    parts += [f"## Accuracy, mean ± standard deviation of {len(seeds)} seeds", table(head, rows)]
    text = "\n\n".join(parts) + "\n"
    print(text)
    if not options.quick:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
