"""Speed, memory and accuracy of the neighbour graph and of curation.

    python benchmarks/curation.py                    # all but the largest
    python benchmarks/curation.py --only graph huge  # some sections; huge: 300,000 x 384, exact and approximate
    python benchmarks/curation.py --quick            # a look, in a minute; the results file is not written

Prints Markdown tables and writes them to benchmarks/results/curation.md, section by section. Each size runs
in a process of its own, which maps the vectors from a file, so that peak memory is the stage's; the plain matrix
product of the same shapes runs in the same process, before and after.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tables import Results, processor, table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks/results/curation.md"
SIZES = [(2_000, 64), (10_000, 128), (30_000, 384)]
LARGE, RATERS = (52_000, 384), 3
HUGE = (300_000, 384)  # by approximate search
SCALING, D_LOCAL = [10_000, 30_000, 100_000, 300_000], 384
SEEDS = (1001, 1002, 1003, 1004, 1005)
K, MEMORY = 32, 2048 << 20
SHORT, SHORT_UP_TO = 5, 10_000  # the graph is found so often where it takes a moment; the median counts
ASSUMED: dict[str, Any] = {"exact": "cautious", "exact, clusterable": "clusterable"}
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


def memory_of(field: str) -> float:
    """MiB of this process by the kernel's count: VmRSS now, VmHWM at most; mapped files count while they are read."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def product_rate(unit: np.ndarray, block: int = 2048) -> float:
    """Billion multiply-adds per second of plain float32 products of the search's own blocks, all pairs once."""
    block = min(block, len(unit))
    out = np.empty((block, block), np.float32)
    starts = range(0, len(unit) - block + 1, block)
    # numpy takes another, slower routine for a matrix with itself, and BLAS starts its threads at the first product.
    copies = {start: unit[start : start + block].copy() for start in starts}
    np.matmul(unit[:block], copies[0].T, out=out)
    seconds, done = 0.0, 0
    while seconds < 0.2:
        for first in starts:
            for second in starts:
                a, b = unit[first : first + block], copies[second]
                seconds += timed(lambda a=a, b=b: np.matmul(a, b.T, out=out))[0]
                done += block * block * unit.shape[1]
                if seconds > 10:
                    return done / seconds / 1e9
    return done / seconds / 1e9


def torch_rate(unit: np.ndarray, block: int = 2048) -> float:
    import torch

    a, b = torch.from_numpy(unit[:block]), torch.from_numpy(unit[-block:])
    torch.mm(a, b.T)
    seconds = min(timed(lambda: torch.mm(a, b.T))[0] for _ in range(10))
    return len(a) * len(b) * unit.shape[1] / seconds / 1e9


def load_libraries() -> None:
    """What curation loads when it is first called, which shall not be timed."""
    import scipy.optimize
    import scipy.sparse.csgraph
    import scipy.special
    import scipy.stats  # noqa: F401


def opened(folder: Path) -> tuple[Any, np.ndarray]:
    """A pool's vectors, mapped, and its scores."""
    from tamis.neighbors.vectors import Vectors

    load_libraries()
    return Vectors(mapped(folder)), np.load(folder / "scores.npy")


def mapped(folder: Path) -> np.ndarray:
    return np.load(folder / "vectors.npy", mmap_mode="r")


def measure(folder: Path, n: int, d: int) -> dict[str, float]:
    """One size: seconds by part, rates beside those of plain products, peak memory."""
    from tamis.curation import curate
    from tamis.neighbors import exact as search
    from tamis.neighbors import refine

    held, scores = opened(folder)
    found: dict[str, float] = {"before_mib": memory_of("VmRSS")}
    unit = held.unit(0, n)
    rates = [product_rate(unit)]
    del unit
    time.sleep(0.5)  # OpenBLAS' threads keep cores busy for a while after a product, waiting for the next
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    parts = []
    for _ in range(SHORT if n <= SHORT_UP_TO else 1):
        one, (cosines, candidates) = timed(lambda: search.candidates(held, K + refine.SPARE, MEMORY))
        two, (indices, distances, _) = timed(lambda c=candidates, f=cosines: refine.neighbors_of(held, c, K, f))
        parts.append((one, two))
    found["candidates"], found["refine"] = sorted(parts, key=sum)[len(parts) // 2]
    found["curate"], _ = timed(lambda: curate(scores, indices, distances, embeddings=mapped(folder)))
    found["peak_mib"] = memory_of("VmHWM")
    rates.append(product_rate(held.unit(0, n)))
    found["graph"] = found["candidates"] + found["refine"]
    found["total"] = found["graph"] + found["curate"]
    found["plain"], found["torch"] = float(np.mean(rates)), torch_rate(held.unit(0, n))
    found["rate"] = n * n * d / found["graph"] / 1e9
    found["share"] = found["rate"] / found["plain"]
    return found


def measure_curation(folder: Path, n: int) -> dict[str, float]:
    """Curation alone, by part; every sample's neighbours are the nearest of its own cluster's surroundings."""
    from tamis.curation import curate, joint, regression, surroundings
    from tamis.curation.model import FIT_SAMPLES
    from tamis.curation.neighborhoods import Neighborhoods
    from tests.unit.curation.pools import make_local

    load_libraries()
    scores, indices, distances = make_local(n, K, seed=7)
    vectors = local_vectors(folder, n)
    view = Neighborhoods(scores, indices, distances, None)
    ratings, rows = scores[:, None], view.sample(FIT_SAMPLES)
    prior = np.bincount(scores, minlength=6) / n
    found: dict[str, float] = {}
    folds = np.random.default_rng(0).integers(0, 5, n)
    found["regression"], told = timed(lambda: regression.predict(scores.astype(float), view, vectors, None, folds))
    predicted = (told.predicted - told.predicted.mean()) / told.predicted.std()
    observed = surroundings.Observations(view, ratings, predicted, prior=prior, k=K)
    found["surroundings"], near = timed(lambda: surroundings.fit(observed, view.sample(3_000), rows))
    z = near.of(view, observed.codes, rows, predicted)
    found["joint"], points = timed(lambda: joint.fit(z, ratings[rows], np.full(len(rows), -1, np.int8), prior))
    everyone = np.arange(n)
    found["posterior"], _ = timed(
        lambda: joint.posterior(points, near.of(view, observed.codes, everyone, predicted), ratings)
    )
    found["curate"], _ = timed(lambda: curate(scores, indices, distances, embeddings=vectors))
    found["peak_mib"] = memory_of("VmHWM")
    return found


def local_vectors(folder: Path, n: int) -> np.ndarray:
    """Vectors of 20 near ones each, written block by block and mapped."""
    rng = np.random.default_rng(7)
    centers = rng.standard_normal((n // 20 + 1, D_LOCAL), dtype=np.float32)
    vectors = np.lib.format.open_memmap(folder / "local.npy", "w+", np.float16, (n, D_LOCAL))
    for start in range(0, n, 10_000):
        rows = np.arange(start, min(start + 10_000, n))
        some = centers[rows // 20] + rng.standard_normal((len(rows), D_LOCAL), dtype=np.float32)
        vectors[rows] = some / np.linalg.norm(some, axis=1, keepdims=True)
    vectors.flush()
    return np.load(folder / "local.npy", mmap_mode="r")


def exact_graph(held: Any) -> tuple[np.ndarray, np.ndarray]:
    from tamis.neighbors import exact as search
    from tamis.neighbors import refine

    cosines, candidates = search.candidates(held, K + refine.SPARE, MEMORY)
    return refine.neighbors_of(held, candidates, K, cosines)[:2]


def measure_raters(folder: Path, n: int, d: int) -> dict[str, float]:
    """The graph once; on it, curation of three raters each alone and of all together."""
    from tamis.curation import curate

    held, scores = opened(folder)
    random = np.random.default_rng(1)
    found: dict[str, float] = {"before_mib": memory_of("VmRSS")}
    start = time.perf_counter()
    indices, distances = exact_graph(held)
    found["graph"] = time.perf_counter() - start
    some = random.random((n, RATERS)) < 0.1
    ratings = np.where(some, random.integers(0, 6, (n, RATERS)), scores[:, None])
    for again in ratings.T:
        curate(again, indices, distances, embeddings=mapped(folder))
    found["total"] = time.perf_counter() - start
    found["together"], _ = timed(lambda: curate(ratings, indices, distances, embeddings=mapped(folder)))
    found["peak_mib"] = memory_of("VmHWM")
    return found


def measure_stage(folder: Path, n: int, d: int, approximate: int) -> dict[str, float]:
    """The neighbors stage on stored embeddings, and curation on what it found."""
    from tamis.core.artifacts import Artifact
    from tamis.curation import curate
    from tamis.neighbors.settings import NeighborsSettings
    from tamis.neighbors.stage import run
    from tests.artifacts import make_embeddings

    _, scores = opened(folder)
    if not (folder / "embeddings").exists():
        make_embeddings(folder / "embeddings", [f"{i:032x}" for i in range(n)], mapped(folder))
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    found: dict[str, float] = {"before_mib": memory_of("VmRSS")}
    settings = NeighborsSettings(
        k=20, method="approximate" if approximate else "exact", build_threads=0 if approximate > 1 else 1
    )
    out = folder / f"neighbors-{approximate}"
    found["graph"], _ = timed(lambda: run(settings, embeddings=folder / "embeddings", out=out))
    found["peak_mib"] = memory_of("VmHWM")
    indices, distances = (np.load(out / name, mmap_mode="r") for name in ("indices.npy", "distances.npy"))
    found["curate"], _ = timed(lambda: curate(scores, indices, distances, embeddings=mapped(folder)))
    facts = Artifact.open(out, "neighbors").manifest.facts
    return found | {name: float(value) for name, value in facts.items() if "recall" in name or "effort" in name}


def make_files(folder: Path, n: int, d: int) -> dict[str, float]:
    """A pool's vectors and scores on disk."""
    from tests.unit.curation.pools import make_vectors

    vectors, scores = make_vectors(n, d, seed=7)
    np.save(folder / "vectors.npy", vectors.astype(np.float16))
    np.save(folder / "scores.npy", scores)
    return {}


MEASURES: dict[str, Callable[..., dict[str, float]]] = {
    "files": make_files,
    "parts": measure,
    "curation": measure_curation,
    "raters": measure_raters,
    "stage": measure_stage,
}


@contextmanager
def pool_files(n: int, d: int) -> Iterator[str]:
    """A folder with a pool's vectors and scores, made by a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        measured("files", folder, n, d)
        yield folder


def measured(kind: str, folder: str | Path, *numbers: int) -> dict[str, float]:
    """One of `MEASURES` in a process of its own."""
    command = [sys.executable, __file__, "--measure", kind, str(folder), *map(str, numbers)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def accuracy(mode: str, options: dict[str, Any], seed: int) -> tuple[float, ...]:
    """T error, prior error, F1 of flags, share right before and after, mean error, mean true score of the top tenth."""
    from tamis.curation import curate, rounds
    from tamis.curation.diversity import diversity_scores
    from tests.unit.curation.pools import make_pool

    pool = make_pool(**({"n": 10_000, "d": 128} | options), seed=seed)
    arrays = (pool.scores, pool.indices, pool.distances)
    if mode in ASSUMED:
        result = curate(*arrays, embeddings=pool.vectors, assume=ASSUMED[mode])
    else:
        result = rounds.curate(*arrays, doubled=mode == "reference", seed=seed)
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


def graphs(sizes: list[tuple[int, int]]) -> Iterator[str]:
    found = {}
    for n, d in sizes:
        with pool_files(n, d) as folder:
            found[n, d] = measured("parts", folder, n, d)
    names = ["candidates", "refine", "curate", "total"]
    head = ["pool", *names, "peak MiB", "of it before"]
    rows = [
        [f"{n:,} x {d}", *(f"{f[name]:.2f}" for name in names), f"{f['peak_mib']:.0f}", f"{f['before_mib']:.0f}"]
        for (n, d), f in found.items()
    ]
    yield (
        "## Seconds by part\n\n`candidates` and `refine` are the graph; `curate` is the whole of exact curation, with "
        "its regression on the embedding; `total` is graph and curation. `of it before`: Python and its libraries, "
        "loaded.\n\n" + table(head, rows)
    )
    head = ["pool", "graph, 10^9 multiply-adds/s", "plain sgemm (numpy)", "share", "torch sgemm"]
    rows = [
        [f"{n:,} x {d}", f"{f['rate']:.0f}", f"{f['plain']:.0f}", f"{f['share']:.2f}", f"{f['torch']:.0f}"]
        for (n, d), f in found.items()
    ]
    yield (
        "## The graph against the matrix product alone\n\nThe graph is counted as all n x n x d multiply-adds; it "
        "computes half of them, for the cosine matrix is symmetric, so the share can exceed 1.\n\n" + table(head, rows)
    )


def several_raters() -> Iterator[str]:
    n, d = LARGE
    with pool_files(n, d) as folder:
        f = measured("raters", folder, n, d)
    yield (
        f"## {n:,} x {d}, three raters\n\nThe graph once: {f['graph']:.1f} s; with the curation of {RATERS} raters, "
        f"each by itself, {f['total']:.1f} s. Curation of all together: {f['together']:.1f} s. Peak memory "
        f"{f['peak_mib']:.0f} MiB, of it {f['before_mib']:.0f} Python and its libraries."
    )


def huge(n: int, d: int) -> Iterator[str]:
    """Exact and approximate search by the stage, from embeddings on disk."""
    rows = []
    with pool_files(n, d) as folder:
        for kind, name in ((1, "approximate, index built by 1 thread"), (2, "… by all threads"), (0, "exact")):
            f = measured("stage", folder, n, d, kind)
            shares = [f"{f[f'recall_at_{at}']:.4f}" if kind else "1" for at in (2, 10, 20)]
            effort = f"{f['search_effort']:.0f}" if kind else ""
            rows.append([name, f"{f['graph']:.0f}", effort, *shares, f"{f['curate']:.1f}", f"{f['peak_mib']:,.0f}"])
    head = ["search", "seconds", "effort", "recall@2", "@10", "@20", "curation, s", "peak MiB"]
    yield (
        f"## {n:,} x {d}\n\nThe whole stage with k = 20 from embeddings on disk, and exact curation of one rater on "
        "its graph. Each sample has about twenty near ones; what lies beyond is as good as random: the hardest case "
        "for an index.\n\n" + table(head, rows)
    )


def growth(sizes: list[int]) -> Iterator[str]:
    from tamis.curation.model import FIT_SAMPLES

    names = ["regression", "surroundings", "joint", "posterior", "curate"]
    rows = []
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            f = measured("curation", folder, n)
        rows.append(
            [f"{n:,}", *(f"{f[name]:.2f}" for name in names), f"{1e6 * f['curate'] / n:.0f}", f"{f['peak_mib']:.0f}"]
        )
    yield (
        f"## Curation grows linearly (seconds)\n\n`curate` is all of it, with embeddings of {D_LOCAL} dimensions; the "
        f"parts before are shown once each. Surroundings and joint model are fitted to {FIT_SAMPLES:,} samples "
        "at most (`fit_samples`); the regression is fitted to all, and all get a posterior.\n\n"
        + table(["samples", *names, "µs per sample", "peak MiB"], rows)
    )


def accuracies(seeds: Sequence[int]) -> Iterator[str]:
    head = ["pool", "mode", "T error", "prior L1", "F1 flags", "right before", "right after", "mean error", "top 10 %"]
    rows = []
    for name, settings in POOLS.items():
        for mode in (*ASSUMED, "paper", "reference"):
            values = np.array([accuracy(mode, settings, seed) for seed in seeds])
            means, spread = values.mean(0), values.std(0)
            rows.append([name, mode, *(f"{m:.4f} ± {s:.4f}" for m, s in zip(means, spread, strict=True))])
    yield (
        f"## Accuracy, mean ± standard deviation of {len(seeds)} seeds\n\n`exact` is the default, which corrects only "
        "what the data can tell; `clusterable` takes for granted that near samples share their true score, which holds "
        "in these pools, but for a tenth of one.\n\n" + table(head, rows)
    )


def sections(options: argparse.Namespace) -> Iterator[str]:
    chosen = options.only or ["graph", "raters", "growth", "accuracy"]
    if "graph" in chosen:
        yield from graphs(SIZES[:2] if options.quick else [*SIZES, LARGE])
    if "raters" in chosen and not options.quick:
        yield from several_raters()
    if "huge" in chosen:
        yield from huge(*HUGE)
    if "growth" in chosen:
        yield from growth(SCALING[:2] if options.quick else SCALING)
    if "accuracy" in chosen:
        yield from accuracies(SEEDS[:1] if options.quick else SEEDS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=["graph", "raters", "huge", "growth", "accuracy"])
    parser.add_argument(
        "--quick", action="store_true", help="small sizes and one seed; the results file is not written"
    )
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        kind, folder, *numbers = options.measure
        print(json.dumps(MEASURES[kind](Path(folder), *map(int, numbers))))
        return
    head = f"# Neighbour graph and curation\n\n{os.cpu_count()} cores, {processor()}, numpy {np.__version__}."
    results = Results(RESULTS, head)
    for section in sections(options):
        print(section)
        if not options.quick:
            results.put(section)


if __name__ == "__main__":
    main()
