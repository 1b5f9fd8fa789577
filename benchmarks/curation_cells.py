"""One cell of the curation grid: a pool with known truth, what curation makes of it, and what other methods do.

`run` measures cells in processes of one thread each and keeps a line of JSON for each in build/curation_grid/, in a
file named by the code that was measured: a run that was killed goes on, and changed code is measured anew.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "components")]  # this checkout's code is what is measured

from tests.unit.curation import pools  # noqa: E402

HERE, KEPT, ENVIRONMENT = ROOT / "benchmarks", ROOT / "build/curation_grid", ROOT / "build/benchmarks-env"
CLASSES, BINS, DRAWS = 6, 10, 20
SURE = 0.9
Run = dict[str, Any]


@dataclass(frozen=True, order=True)
class Cell:
    """A kind of pool. Those that come next to each other in order have the same vectors where they can."""

    n: int
    raters: int
    shared: bool
    own: float
    rater: str
    grades: int

    @property
    def name(self) -> str:
        return f"n={self.n} h={self.own} {self.rater} {self.of} grades={self.grades}"

    @property
    def of(self) -> str:
        """How many raters, and whether they share errors."""
        return f"R={self.raters}" + (" shared" if self.shared else "")

    def pool(self, seed: int) -> pools.RatedPool:
        return pools.mixed_pool(
            self.n,
            seed=seed,
            own=self.own,
            rater=self.rater,
            raters=self.raters,
            shared=self.shared,
            grades=self.grades,
        )


@dataclass
class RememberedNearest:
    """The pools' search, which keeps its last answer: pools that differ in truth or grades only have equal vectors."""

    search: Any
    vectors: np.ndarray = field(default_factory=lambda: np.empty(0))
    found: Any = None

    def __call__(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if not np.array_equal(vectors, self.vectors):
            self.vectors, self.found = vectors, self.search(vectors, k)
        return self.found


def calibration_error(said: np.ndarray, right: np.ndarray) -> tuple[float, list[list[float]]]:
    """Expected calibration error over bins of equal width, and of each bin: samples, sum of `said`, sum of `right`."""
    at = np.minimum((said * BINS).astype(int), BINS - 1)
    sums = [np.bincount(at, weights, minlength=BINS) for weights in (np.ones(len(said)), said, right)]
    error = np.abs(sums[1] - sums[2]).sum() / len(said) if len(said) else np.nan
    return float(error), [part.tolist() for part in sums]


def figures(pool: pools.RatedPool, score: np.ndarray, confidence: np.ndarray) -> Run:
    """What a cell is judged by, on the samples that no person graded."""
    rest = pool.grades < 0
    assert pool.ideal is not None
    possible = float((pool.ideal == pool.true)[rest].mean())
    true, raw, score, confidence = (values[rest] for values in (pool.true, pool.raw, score, confidence))
    right, known = score == true, ~np.isnan(confidence)
    said = confidence[known].astype(float)
    error, bins = calibration_error(said, right[known].astype(float))
    rng = np.random.default_rng(0)
    drawn = [calibration_error(said, (rng.random(len(said)) < said).astype(float))[0] for _ in range(DRAWS)]
    corrected = score != raw
    sure = corrected & (np.nan_to_num(confidence) >= SURE)
    return {
        "right_before": float((raw == true).mean()),
        "right": float(right.mean()),
        "possible": possible,
        "error_before": float(np.abs(raw.astype(int) - true).mean()),
        "error": float(np.abs(score.astype(int) - true).mean()),
        "calibration": error,
        "floor": float(np.mean(drawn)),
        "bins": bins,
        "known": float(known.mean()),
        "corrected": int(corrected.sum()),
        "corrected_right": int((corrected & right).sum()),
        "sure": int(sure.sum()),
        "sure_right": int((sure & right).sum()),
    }


def ours(cell: Cell, seed: int) -> Run:
    """Figures of Tamis' curation and its seconds, or why it failed."""
    from tamis.curation import curate

    pool = cell.pool(seed)
    start = time.perf_counter()
    given = (pool.ratings, pool.indices, pool.distances)
    try:
        result = curate(*given, embeddings=pool.vectors, grades=pool.grades, classes=CLASSES)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # shown in the results
        return {"failed": f"{type(error).__name__}: {error}"[:300]}
    seconds = time.perf_counter() - start
    return figures(pool, np.asarray(result.score), np.asarray(result.confidence)) | {"seconds": seconds}


def external(cell: Cell, seed: int) -> Run:
    """Of every other method: share right, mean absolute error and seconds, or why it failed."""
    pool = cell.pool(seed)
    found: Run = {}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "pool.npz", ratings=pool.ratings, vectors=pool.vectors, indices=pool.indices)
        answers = answer(f"{folder}/pool.npz")
    for method, told in answers.items():
        found[method] = told
        if "score" in told:
            score = np.array(told.pop("score"))
            told |= {"right": float((score == pool.true).mean()), "error": float(np.abs(score - pool.true).mean())}
    return found


@cache
def other_process() -> subprocess.Popen[str]:
    command = [str(ENVIRONMENT / "bin/python"), str(HERE / "external_curation.py")]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def answer(path: str) -> dict[str, Run]:
    process = other_process()
    assert process.stdin is not None
    assert process.stdout is not None
    print(path, file=process.stdin, flush=True)
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"external_curation.py ended with {process.wait()}; its message stands above")
    told: dict[str, Run] = json.loads(line)
    return told


def make_environment() -> None:
    """The other methods' own environment, made anew when external.txt changes."""
    wanted, stamp = (HERE / "external.txt").read_text(encoding="utf-8"), ENVIRONMENT / "made-from.txt"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    print(f"making {ENVIRONMENT.relative_to(ROOT)}, some minutes", file=sys.stderr)
    venv.create(ENVIRONMENT, with_pip=True, clear=True)
    pip = [str(ENVIRONMENT / "bin/python"), "-m", "pip", "install", "--quiet", "--requirement"]
    subprocess.run([*pip, str(HERE / "external.txt")], check=True)
    stamp.write_text(wanted, encoding="utf-8")


def kept_file(kind: str) -> Path:
    """Where results of `kind` are kept: a name of their own for every state of the code that they depend on."""
    files = [Path(__file__), Path(pools.__file__)]
    if kind == "ours":
        files += sorted((ROOT / "components/tamis/curation").rglob("*.py"))
    else:
        files += [HERE / "external.txt", HERE / "external_curation.py"]
    state = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
    return KEPT / f"{kind}-{state}.jsonl"


def work(task: tuple[str, Path, list[tuple[Cell, int]]]) -> int:
    """Measure some cells in order, adding a line for each to the file."""
    kind, path, part = task
    if not isinstance(pools.nearest, RememberedNearest):
        pools.nearest = RememberedNearest(pools.nearest)
    for cell, seed in part:
        found = {"ours": ours, "external": external}[kind](cell, seed)
        line = json.dumps({"cell": cell.name, "seed": seed, "found": found}) + "\n"
        with path.open("ab", buffering=0) as file:  # one write: lines of two processes do not mix
            file.write(line.encode())
    return len(part)


def read(path: Path) -> dict[tuple[str, int], Run]:
    found: dict[tuple[str, int], Run] = {}
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # of a run that was killed while it wrote
            continue
        found[entry["cell"], entry["seed"]] = entry["found"]
    return found


def run(kind: str, cells: Iterable[Cell], seeds: list[int], jobs: int) -> dict[Cell, list[Run]]:
    """Every cell's results, one per seed; only those that are not kept yet are measured."""
    cells = sorted(set(cells))
    if kind == "external":
        make_environment()
    path = kept_file(kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\n")
    kept = read(path)
    missing = [(cell, seed) for seed in seeds for cell in cells if (cell.name, seed) not in kept]
    same = itertools.groupby(missing, key=lambda task: (task[1], task[0].n, task[0].raters, task[0].shared))
    parts = [(kind, path, list(part)) for _, part in same]
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    start, done = time.perf_counter(), 0
    with multiprocessing.get_context("spawn").Pool(min(jobs, max(1, len(parts)))) as workers:
        for count in workers.imap_unordered(work, parts):
            done += count
            print(f"{kind}: {done} of {len(missing)}, {time.perf_counter() - start:.0f} s", file=sys.stderr)
    kept = read(path)
    return {cell: [kept[cell.name, seed] for seed in seeds] for cell in cells}
