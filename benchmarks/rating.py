"""Speed and memory of rating.

    python benchmarks/rating.py --durable 1000000       # an instant rater: memory, throughput, start of a resume
    python benchmarks/rating.py --client 4000           # an instant server: requests per second that the client manages
    python benchmarks/rating.py --service http://127.0.0.1:8000/v1 --model NAME --samples 2000 --pool POOL
                                                        # a real server: against a bare client that sends the same

Prints Markdown tables and writes them to benchmarks/results/rating.md, section by section. Every run of Tamis is a
process of its own, so its peak memory is its own.
"""

from __future__ import annotations

import argparse
import asyncio
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

from tamis.core.artifacts import Artifact  # noqa: E402
from tamis.core.llm.backend import Answer, Request, Size  # noqa: E402
from tamis.core.settings import parse  # noqa: E402
from tamis.core.tables import POOL, PartsWriter  # noqa: E402
from tamis.rating.settings import RatingSettings  # noqa: E402
from tests.artifacts import make  # noqa: E402
from tests.llm_server import GOOD, Reaction, Server, completion  # noqa: E402

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


def work(kind: str, settings: dict[str, Any], pool: str, out: str, most: int) -> None:
    """One run of the stage in this process."""
    from tamis.rating import stage

    instant = Instant(most)
    if kind == "instant":
        stage.make_backend = lambda settings, prompt: instant  # type: ignore[assignment]
    start = time.monotonic()
    manifest = stage.run(parse(RatingSettings, settings, where="benchmark"), pool=pool, out=out)
    told(start=start, first=instant.first, seconds=time.monotonic() - start, facts=manifest.facts)


def run(kind: str, settings: dict[str, Any], pool: Path, out: Path, most: int = 1 << 60) -> dict[str, Any]:
    """One run in a process of its own; what it found."""
    command = [sys.executable, __file__, "--worker", kind, json.dumps(settings), str(pool), str(out), str(most)]
    start = time.monotonic()
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if ended.returncode not in (0, 9):
        raise SystemExit(f"the run ended with {ended.returncode}")
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found | {"wall": time.monotonic() - start, "started": start}


def durable(n: int) -> str:
    """An instant rater on pools of n/10 and n samples, and a kill at 90 %."""
    lines = ["| run | samples | seconds | samples/s | peak memory |", "| --- | --- | --- | --- | --- |"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)

        def settings(store: str) -> dict[str, Any]:
            return {"name": "b", "backend": {"kind": "openai", "model": "m"}, "store": str(folder / store)}

        for size in (n // 10, n):
            write_pool(folder / f"pool{size}", size)
            seen = run("instant", settings(f"store{size}"), folder / f"pool{size}", folder / f"out{size}")
            speed = size / seen["seconds"]
            lines.append(f"| whole | {size:,} | {seen['seconds']:.0f} | {speed:,.0f} | {seen['peak']:,} MiB |")
        cut = n * 9 // 10
        seen = run("instant", settings("cut"), folder / f"pool{n}", folder / "cut", cut)
        lines.append(f"| killed at 90 % | {cut:,} | | | {seen['peak']:,} MiB |")
        seen = run("instant", settings("cut"), folder / f"pool{n}", folder / "cut")
        before = seen["first"] - seen["started"]
        said = f"resumed: {before:.0f} s to its first question"
        lines.append(f"| {said} | {n - cut:,} | {seen['seconds']:.0f} | | {seen['peak']:,} MiB |")
        assert seen["facts"]["reused"] == cut, seen["facts"]
    return f"## An instant rater, {n:,} samples\n\n" + "\n".join(lines)


def service_settings(url: str, model: str, store: Path, concurrency: int, **more: Any) -> dict[str, Any]:
    """A rater that is a service."""
    backend = {"kind": "openai", "model": model, "base_url": url, "api_key_env": None, "concurrency": concurrency}
    return {
        "name": "b",
        "backend": backend | {"timeout": 1800, "patience": 7200} | more,
        "store": str(store),
        "max_failure_share": 1.0,
    }


async def bare(settings: dict[str, Any], pool: Path, concurrency: int) -> float:
    """Seconds of a plain client that sends the same requests and keeps nothing."""
    import openai

    from tamis.core.samples import as_text
    from tamis.rating.backends import make_backend
    from tamis.rating.prompts import load_prompt

    mine = parse(RatingSettings, settings, where="benchmark")
    backend: Any = make_backend(mine, load_prompt(mine.prompt))
    bodies = []
    for row in Artifact.open(pool, "pool").table(["id", "messages"]).to_pylist():
        job = backend._job(Request(row["id"], as_text(row["messages"])))
        bodies.append(backend.body(job.request, job.text))
    client = openai.AsyncOpenAI(api_key="none", base_url=mine.backend.base_url, max_retries=0, timeout=1800)
    turn = asyncio.Semaphore(concurrency)

    async def one(body: dict[str, Any]) -> None:
        async with turn:
            await client.chat.completions.create(model=mine.backend.model, **body)

    start = time.monotonic()
    await asyncio.gather(*map(one, bodies))
    seconds = time.monotonic() - start
    await client.close()
    return seconds


def service(url: str, model: str, pool: Path, concurrency: int, title: str, rounds: int, **more: Any) -> str:
    """Tamis and the bare client in turn, on the same server, pool and concurrency."""
    count = Artifact.open(pool, "pool").manifest.rows
    lines = ["| run | seconds | samples/s |", "| --- | --- | --- |"]
    ratios = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for number in range(rounds):
            settings = service_settings(url, model, folder / f"store{number}", concurrency, **more)
            plain = asyncio.run(bare(settings, pool, concurrency))
            mine = run("service", settings, pool, folder / f"out{number}")
            lines.append(f"| bare client, {number + 1} | {plain:.1f} | {count / plain:,.1f} |")
            lines.append(f"| Tamis, {number + 1} | {mine['seconds']:.1f} | {count / mine['seconds']:,.1f} |")
            ratios.append(plain / mine["seconds"])
            facts = mine["facts"]
        ok = f"{facts['ok']} of {count} rated, {facts['unparsable']} unparsable, {facts['failed']} failed"
    ratio = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    return (
        f"## {title}\n\n"
        + "\n".join(lines)
        + f"\n\nThroughput against the bare client: {ratio} ({ok} in the last run)."
    )


def sections(options: argparse.Namespace) -> Iterator[str]:
    if options.durable:
        yield durable(options.durable)
    if options.client:
        with tempfile.TemporaryDirectory() as temporary, Server(lambda asked: Reaction(completion())) as server:
            write_pool(Path(temporary) / "pool", options.client)
            title = f"An instant server in the same process as the bare client, {options.client:,} samples"
            yield service(server.url, "m", Path(temporary) / "pool", 64, title, 2)
    if options.service:
        pool = Path(options.pool)
        title = f"{options.model} at a vLLM server, {Artifact.open(pool, 'pool').manifest.rows:,} samples"
        more = json.loads(options.more)
        yield service(options.service, options.model, pool, options.concurrency, title, options.rounds, **more)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--durable", type=int, default=0, help="samples for an instant rater")
    parser.add_argument("--client", type=int, default=0, help="samples for an instant server")
    parser.add_argument("--service", help="address of a real server")
    parser.add_argument("--model", help="its model's name")
    parser.add_argument("--pool", help="a pool artifact to rate by it")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--more", default="{}", help="further settings of the backend, as JSON")
    parser.add_argument("--note", default="", help="a remark that goes with the figures")
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        kind, settings, pool, out, most = options.worker
        work(kind, json.loads(settings), pool, out, int(most))
        return
    head = f"# Rating\n\n{os.cpu_count()} cores, {platform.machine()}."
    old = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else head
    kept = {part.splitlines()[0]: part.strip() for part in old.split("\n## ")[1:]}
    for section in sections(options):
        if options.note:
            section += f"\n\n{options.note}"
        print(section)
        kept[section.splitlines()[0].removeprefix("## ")] = section.removeprefix("## ")
    RESULTS.write_text("\n\n## ".join([head, *kept.values()]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
