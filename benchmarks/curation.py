"""Speed, memory and accuracy of the neighbour graph and of curation.

    python benchmarks/curation.py            # all but the largest
    python benchmarks/curation.py --large    # 52,000 x 384 too
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
LARGE = (52_000, 384)
SCALING = [5_000, 10_000, 20_000, 40_000]
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


def measure(n: int, d: int, plain: bool) -> dict[str, float]:
    """One size: seconds by part, rates, peak memory. `plain`: with the plain products beside it."""
    from tamis.curation import exact, mixture, transition
    from tamis.curation.consensus import consensus
    from tamis.curation.neighborhoods import Neighborhoods
    from tamis.neighbors import exact as search
    from tamis.neighbors import refine
    from tamis.neighbors.vectors import Vectors
    from tests.unit.curation.pools import make_vectors

    vectors, scores = make_vectors(n, d, seed=7)
    held = Vectors(vectors.astype(np.float16))
    unit = held.unit(0, n)
    rates = [product_rate(unit)] if plain else []
    by_torch = torch_rate(unit) if plain else 0.0
    found: dict[str, float] = {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found["candidates"], (cosines, candidates) = timed(lambda: search.candidates(held, K + refine.SPARE, MEMORY))
    found["refine"], (indices, distances, _) = timed(lambda: refine.neighbors_of(held, candidates, K, cosines))
    if plain:
        rates.append(product_rate(unit))
    view = Neighborhoods(scores.astype(np.int8), indices, distances, None)
    found["consensus"], _ = timed(lambda: consensus(view, 6))
    found["em_k"], start = timed(lambda: transition.from_neighbors(view, 6, 5))
    rows = view.sample(50_000)
    found["bins"], bins = timed(lambda: mixture.Bins(view, rows, K))
    found["fit"], model = timed(lambda: mixture.fit(view, rows, mixture.start_from(view, bins, start.T, start.p, K)))
    found["posterior"], _ = timed(lambda: list(model.evidence(view, np.arange(n))))
    found["curate"], _ = timed(lambda: exact.curate(scores, indices, distances))
    found["graph"] = found["candidates"] + found["refine"]
    found["total"] = found["graph"] + found["curate"]
    if plain:
        found["plain"], found["torch"] = float(np.mean(rates)), by_torch
        found["rate"] = n * n * d / found["graph"] / 1e9
        found["share"] = found["rate"] / found["plain"]
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found["before_mib"] = before / 1024
    return found


def measured(n: int, d: int, plain: bool = True) -> dict[str, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--measure", f"{n},{d},{int(plain)}"]
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


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="52,000 x 384 too")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes and one seed; the results file is not written"
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        n, d, plain = map(int, options.measure.split(","))
        print(json.dumps(measure(n, d, bool(plain))))
        return

    sizes = SIZES[:2] if options.quick else [*SIZES, *([LARGE] if options.large else [])]
    seeds = SEEDS[:1] if options.quick else SEEDS
    parts = ["# Neighbour graph and curation", f"{os.cpu_count()} cores, {platform.machine()}, numpy {np.__version__}."]
    found = {size: measured(*size) for size in sizes}
    names = ["candidates", "refine", "consensus", "em_k", "bins", "fit", "posterior", "curate", "total"]
    head = ["pool", *names, "peak MiB", "of it before"]
    rows = [
        [f"{n:,} x {d}", *(f"{f[name]:.2f}" for name in names), f"{f['peak_mib']:.0f}", f"{f['before_mib']:.0f}"]
        for (n, d), f in found.items()
    ]
    parts += [
        "## Seconds by part\n\n`candidates` and `refine` are the graph; `curate` is the whole of exact curation, with "
        "its choice of k, of which the parts before it are shown once each; `total` is graph and curation.",
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
    scaling = SCALING[:2] if options.quick else SCALING
    rows = []
    for n in scaling:
        f = measured(n, 64, plain=False)
        values = [f[name] for name in ("consensus", "em_k", "bins", "fit", "posterior", "curate")]
        rows.append([f"{n:,}", *(f"{v:.2f}" for v in values), f"{1e6 * f['curate'] / n:.0f}"])
    head = ["samples", "consensus", "em_k", "bins", "fit", "posterior", "curate", "µs per sample"]
    parts += ["## Curation grows linearly (d = 64, seconds)", table(head, rows)]
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
