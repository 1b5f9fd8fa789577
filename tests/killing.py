"""Four shards at once, killed at random moments and started again, against a server that counts."""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import signal
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tamis.core.artifacts import Artifact
from tamis.rating.merging import run as merge
from tamis.rating.settings import MergeSettings, RatingSettings
from tamis.rating.stage import run
from tests.llm_server import Asked, Reaction, Server, completion

SHARDS, CONCURRENCY = 4, 4  # CONCURRENCY: of each shard
DELAY, WITHIN = 0.2, 5.0  # seconds that an answer takes; seconds in which it must be durable
_WORKER = "TAMIS_TEST_WORKER"
RUNS = int(os.environ.get("TAMIS_TEST_KILLS", "0"))  # whole runs on each storage; without them, one short one
# Workers are real processes, forked from one that has imported what they need: no kill is spent on an import.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.killing", "tamis.llm.backends.openai", "openai", "botocore", "obstore"])
_LOOK = threading.Lock()


@dataclass
class Outcome:
    """What the server saw of one run."""

    kills: int
    requests: int
    repeated: int
    late: list[float]  # seconds between a question and its worker's kill, after which it was asked again, where more
    # than WITHIN of them came after the answer; endless where the worker was not killed


def run_with_kills(pool: Path, store: str, folder: Path, *, kills: int, seed: int) -> Outcome:
    """Rate `pool` in shards with that many kills in all, merge, and check that every id is there exactly once."""
    chance = random.Random(seed)
    started: set[str] = set()  # workers that have asked

    def behave(asked: Asked) -> Reaction:
        started.add(_worker_of(asked))
        return Reaction(completion(), delay=DELAY)

    with Server(behave) as server:
        backend = {"kind": "openai", "model": "m", "base_url": server.url, "api_key_env": _WORKER}
        values = {"name": "mini", "backend": backend | {"concurrency": CONCURRENCY}, "store": store}
        left = [kills // SHARDS + (number < kills % SHARDS) for number in range(SHARDS)]
        length = Artifact.open(pool).manifest.rows / SHARDS / CONCURRENCY * DELAY  # seconds of a shard without kills
        plans = [[chance.uniform(0.2, length) for _ in range(count)] for count in left]
        killed: dict[str, float] = {}
        failures: list[str] = []

        def work(number: int) -> None:
            given = values | {"shard": f"{number + 1}/{SHARDS}"}
            file = folder / f"log{number}"
            for turn, wait in enumerate([*plans[number], None]):
                name = f"{number}.{turn}"
                environment = os.environ | {_WORKER: name}
                process = _FORKS.Process(target=_rate, args=(given, pool, folder / f"shard{number}", file, environment))
                with _LOOK:
                    process.start()
                if wait is not None:
                    while name not in started and not _ended(process, 0.01):
                        pass  # there is nothing to lose before
                    if not _ended(process, wait):
                        process.kill()
                        killed[name] = time.monotonic()
                _ended(process)
                if process.exitcode not in (0, -signal.SIGKILL):
                    failures.append(f"worker {name} ended with {process.exitcode}:\n{file.read_text()}")
                    return

        workers = [threading.Thread(target=work, args=(number,)) for number in range(SHARDS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert not failures, failures[0]
        parts = [folder / f"shard{number}" for number in range(SHARDS)]
        merge(MergeSettings(), pool=pool, ratings=parts, out=folder / "merged")
        ids = Artifact.open(folder / "merged", "ratings").table(["id"])["id"].to_pylist()
        assert ids == Artifact.open(pool).table(["id"])["id"].to_pylist()
        assert len(set(ids)) == len(ids)
        return _seen(server.asked, killed)


def _ended(process: Any, seconds: float = math.inf) -> bool:
    """Whether a process ends within so many seconds. One thread at a time looks: two would race for an exit code."""
    give_up = time.monotonic() + seconds
    while True:
        with _LOOK:
            if not process.is_alive():
                return True
        if time.monotonic() > give_up:
            return False
        time.sleep(0.01)


def _rate(values: dict[str, Any], pool: Path, out: Path, file: Path, environment: dict[str, str]) -> None:
    """Rate one shard; what a worker does."""
    log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(environment)
    run(RatingSettings.model_validate(values), pool=pool, out=out)


def _worker_of(asked: Asked) -> str:
    """Which process asked: it gives its name as its key."""
    return asked.headers["authorization"].removeprefix("Bearer ")


def _seen(asked: list[Asked], killed: dict[str, float]) -> Outcome:
    questions: dict[str, list[Asked]] = defaultdict(list)
    for one in asked:
        questions[one.prompt].append(one)
    late = []
    for sent in questions.values():
        for first in sent[:-1]:
            lost = killed.get(_worker_of(first), math.inf) - first.at
            if lost > DELAY + WITHIN:
                late.append(lost)
    return Outcome(len(killed), len(asked), len(asked) - len(questions), late)


def samples_for_kills(count: int) -> list[Any]:
    """Samples that differ."""
    from tests.artifacts import conversation

    return [conversation(f"What is {number}?", f"A number, {number}.") for number in range(count)]
