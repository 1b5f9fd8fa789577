"""Memory and durable throughput of rating, and how long a run of many finished ratings takes to go on.

    python benchmarks/rating.py [--durable SAMPLES]

The rater answers at once. Every run is a process of its own, so its peak memory is its own. Prints a Markdown table and
writes it to benchmarks/results/rating.md. `rating_engines.py` has the speed of real engines.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import pyarrow as pa  # noqa: E402

from tamis.core.settings import parse  # noqa: E402
from tamis.core.tables import POOL, PartsWriter  # noqa: E402
from tamis.llm.backend import Answer, Request, Size  # noqa: E402
from tamis.rating.settings import RatingSettings  # noqa: E402
from tests.artifacts import make  # noqa: E402
from tests.llm_server import GOOD  # noqa: E402

RESULTS = ROOT / "benchmarks/results/rating.md"
BLOCK = 50_000


def write_pool(out: Path, n: int) -> None:
    """A pool of `n` short samples of about 400 characters."""

    def write(step: Any) -> None:
        with PartsWriter(step.out, POOL) as parts:
            for start in range(0, n, BLOCK):
                numbers = range(start, min(start + BLOCK, n))
                talk = [
                    [{"role": "user", "content": f"Question {i}?"}, {"role": "assistant", "content": f"{i} " * 60}]
                    for i in numbers
                ]
                rows = {
                    "id": [f"{i * 2654435761 % 2**64:016x}{i:016x}" for i in numbers], "source": ["b"] * len(numbers),
                    "messages": talk, "origin": list(numbers), "metadata": [None] * len(numbers),
                    "tools": [None] * len(numbers),
                }  # fmt: skip
                parts.write(pa.table(rows, schema=POOL))
        step.rows = n

    make("pool", out, write)


class Instant:
    """Answers at once; after `most` answers it ends the process as a kill would."""

    identity = {"model": "instant"}  # noqa: RUF012
    deterministic, eager = True, True

    def __init__(self, most: int) -> None:
        self.most, self.given = most, 0
        self.first: float | None = None

    def measure(self, texts: list[str]) -> list[Size]:
        return [Size(100, 30) for _ in texts]

    def answer(self, groups: Iterator[Iterable[Request]]) -> Iterator[list[Answer]]:
        self.first = self.first or time.monotonic()
        batch: list[Answer] = []
        for group in groups:
            for request in group:
                batch.append(Answer(request.id, GOOD, prompt_tokens=100, completion_tokens=30))
                self.given += 1
                if len(batch) == 100:
                    yield batch
                    batch = []
                if self.given >= self.most:
                    time.sleep(8)  # what was answered becomes durable meanwhile
                    told(first=self.first)
                    os._exit(9)
        yield batch


def told(**values: Any) -> None:
    """The worker's findings, as its last line."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps({"peak": memory, "now": time.monotonic()} | values), flush=True)


def work(settings: dict[str, Any], pool: str, out: str, most: int) -> None:
    """One run of the stage in this process."""
    from tamis.rating import stage

    instant = Instant(most)
    stage.make_backend = lambda settings, prompt: instant  # type: ignore[assignment]
    start = time.monotonic()
    manifest = stage.run(parse(RatingSettings, settings, where="benchmark"), pool=pool, out=out)
    told(start=start, first=instant.first, seconds=time.monotonic() - start, facts=manifest.facts)


def run(settings: dict[str, Any], pool: Path, out: Path, most: int = 1 << 60) -> dict[str, Any]:
    """One run in a process of its own; what it found."""
    command = [sys.executable, __file__, "--worker", json.dumps(settings), str(pool), str(out), str(most)]
    start = time.monotonic()
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if ended.returncode not in (0, 9):
        raise SystemExit(f"the run ended with {ended.returncode}")
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found | {"started": start}


def durable(n: int) -> str:
    """An instant rater on pools of n/10 and n samples, and a kill at 90 %."""
    lines = ["| run | samples | seconds | samples/s | peak memory |", "| --- | --- | --- | --- | --- |"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)

        def settings(store: str) -> dict[str, Any]:
            return {"name": "b", "backend": {"kind": "openai", "model": "m"}, "store": str(folder / store)}

        for size in (n // 10, n):
            write_pool(folder / f"pool{size}", size)
            seen = run(settings(f"store{size}"), folder / f"pool{size}", folder / f"out{size}")
            speed = size / seen["seconds"]
            lines.append(f"| whole | {size:,} | {seen['seconds']:.0f} | {speed:,.0f} | {seen['peak']:,} MiB |")
        cut = n * 9 // 10
        seen = run(settings("cut"), folder / f"pool{n}", folder / "cut", cut)
        lines.append(f"| killed at 90 % | {cut:,} | | | {seen['peak']:,} MiB |")
        seen = run(settings("cut"), folder / f"pool{n}", folder / "cut")
        before = seen["first"] - seen["started"]
        said = f"resumed: {before:.0f} s to its first question"
        lines.append(f"| {said} | {n - cut:,} | {seen['seconds']:.0f} | | {seen['peak']:,} MiB |")
        assert seen["facts"]["reused"] == cut, seen["facts"]
    return f"## An instant rater, {n:,} samples\n\n" + "\n".join(lines)


def keep(section: str) -> None:
    """Print a section, and put it into the results in the place of an older one of its title."""
    print(section, flush=True)
    head = f"# Rating\n\n{os.cpu_count()} cores, {platform.machine()}."
    old = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else head
    kept = {part.splitlines()[0]: part.strip() for part in old.split("\n## ")[1:]}
    kept[section.splitlines()[0].removeprefix("## ")] = section.removeprefix("## ")
    RESULTS.write_text("\n\n## ".join([head, *kept.values()]) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--durable", type=int, default=1_000_000, help="samples")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        settings, pool, out, most = options.worker
        work(json.loads(settings), pool, out, int(most))
        return
    keep(durable(options.durable))


if __name__ == "__main__":
    main()
