"""Four shards at once, killed at random moments and started again, against a server that counts."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tamis.core.artifacts import Artifact
from tamis.core.samples import as_text
from tamis.rating.merging import run as merge
from tamis.rating.settings import MergeSettings
from tamis.rating.shards import places
from tests.conftest import ROOT
from tests.llm_server import Asked, Reaction, Server, completion

SHARDS, DELAY, WITHIN = 4, 0.1, 5.0  # WITHIN: seconds in which an answer must be durable
_CODE = (
    "import json, sys\n"
    "from tamis.rating.settings import RatingSettings\n"
    "from tamis.rating.stage import run\n"
    "run(RatingSettings(**json.loads(sys.argv[1])), pool=sys.argv[2], out=sys.argv[3])\n"
)
RUNS = int(os.environ.get("TAMIS_TEST_KILLS", "0"))  # whole runs on each storage; without them, one short one


@dataclass
class Outcome:
    """What the server saw of one run."""

    kills: int
    requests: int
    repeated: int
    late: list[float]  # seconds between a question and the kill after which it was asked again, where the answer's
    # part of them is above WITHIN


def run_with_kills(pool: Path, store: str, folder: Path, *, kills: int, seed: int) -> Outcome:
    """Rate `pool` in shards with that many kills in all, merge, and check that every id is there exactly once."""
    chance = random.Random(seed)
    with Server(lambda asked: Reaction(completion(), delay=DELAY)) as server:
        backend = {"kind": "openai", "model": "m", "base_url": server.url, "api_key_env": None, "concurrency": 4}
        values = {"name": "mini", "backend": backend, "store": store}
        left = [kills // SHARDS + (number < kills % SHARDS) for number in range(SHARDS)]
        plans = [[chance.uniform(0.2, 6.0) for _ in range(count)] for count in left]
        killed: list[list[float]] = [[] for _ in range(SHARDS)]
        failures: list[str] = []

        def work(number: int) -> None:
            out = folder / f"shard{number}"
            given = json.dumps(values | {"shard": f"{number + 1}/{SHARDS}"})
            for wait in [*plans[number], None]:
                command = [sys.executable, "-c", _CODE, given, str(pool), str(out)]
                before = len(server.asked)
                with (folder / f"log{number}").open("w") as log:
                    process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
                    if wait is not None:
                        while len(server.asked) == before and process.poll() is None:
                            time.sleep(0.01)  # imports are not what is to be killed
                        try:
                            process.wait(wait)
                        except subprocess.TimeoutExpired:
                            process.send_signal(signal.SIGKILL)
                            killed[number].append(time.monotonic())
                    if process.wait() not in (0, -signal.SIGKILL):
                        failures.append((folder / f"log{number}").read_text())
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
        return _seen(server.asked, killed, _shards(pool))


def _shards(pool: Path) -> dict[str, int]:
    """The shard, from 0, of each text that a prompt holds."""
    table = Artifact.open(pool).table(["id", "messages"])
    texts = map(as_text, table["messages"].to_pylist())
    return dict(zip(texts, places(table["id"].combine_chunks(), SHARDS).tolist(), strict=True))


def _seen(asked: list[Asked], killed: list[list[float]], shards: dict[str, int]) -> Outcome:
    times: dict[str, list[float]] = defaultdict(list)
    for one in asked:
        times[one.prompt[one.prompt.rindex("### user:") :].rstrip()].append(one.at)
    late = []
    for text, sent in times.items():
        for first, second in pairwise(sent):
            # The first kill of the sample's own worker lost the answer; one before the answer lost only the question.
            kill = min(at for at in killed[shards[text]] if first <= at <= second)
            if kill - first > DELAY + WITHIN:
                late.append(kill - first)
    return Outcome(sum(map(len, killed)), len(asked), sum(len(sent) - 1 for sent in times.values()), late)


def samples_for_kills(count: int) -> list[Any]:
    """Samples that differ."""
    from tests.artifacts import conversation

    return [conversation(f"What is {number}?", f"A number, {number}.") for number in range(count)]
