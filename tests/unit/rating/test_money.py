"""`max_cost`, by the account of the service that charges: what it says it is owed, whatever Tamis thinks."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tamis.core.artifacts import Artifact
from tamis.core.errors import ModelError, TamisError
from tamis.core.settings import parse
from tamis.rating.settings import RatingSettings
from tamis.rating.stage import run
from tests.artifacts import conversation, make_pool
from tests.llm_server import GOOD, Server, Till
from tests.unit.llm.test_openai_batch import PaidBatches

pytest.importorskip("openai")
# Workers are forked from a process that has imported what they need: no kill is spent on an import.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.unit.rating.test_money", "tamis.llm.backends.openai", "openai"])


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return pool_of(600, tmp_path)


def pool_of(count: int, folder: Path) -> Path:
    return make_pool(folder / "pool", [conversation(f"What is {n}?", f"A number, {n}.") for n in range(count)])


def rate(server: Server, till: Till, pool: Path, *, out: str = "out", **own: Any) -> Any:
    """Rate the pool; the manifest's facts."""
    return run(settings(server, till, **own), pool=pool, out=pool.parent / out).facts


def settings(server: Server, till: Till, **own: Any) -> RatingSettings:
    backend = {"kind": "openai", "model": "m", "base_url": server.url, "api_key_env": None}
    backend |= own.pop("backend", {})
    return parse(RatingSettings, {"name": "mini", "backend": backend, "price": till.settings} | own, where="here")


def stopped(server: Server, till: Till, pool: Path, **own: Any) -> None:
    with pytest.raises(ModelError) as raised:
        rate(server, till, pool, **own)
    assert raised.value.code == "budget"


@pytest.mark.parametrize(
    ("till", "most", "concurrency"),
    [
        (Till(reasoning=1000), 0.5, 512),
        (Till(reasoning=1000), 0.5, 4),
        (Till(answer=128), 0.1, 64),
        (Till(reasoning=1000, usage=lambda till, answer: {"prompt_tokens": 100, "completion_tokens": answer,
              "completion_tokens_details": {"reasoning_tokens": till.reasoning}}), 0.1, 64),
        (Till(reasoning=1000, usage=lambda till, answer: {"prompt_tokens": 100, "completion_tokens": answer,
              "total_tokens": 100 + answer + till.reasoning}), 0.1, 64),
        (Till(answer=128, usage=lambda till, answer: {"tokens": 228}), 0.1, 64),
        (Till(answer=128, usage=lambda till, answer: None), 0.1, 64),
    ],
    ids=["reasoning", "few at once", "long", "reasoning beside", "reasoning in the total", "unknown", "none"],
)  # fmt: skip
def test_the_limit_holds(till: Till, most: float, concurrency: int, pool: Path) -> None:
    with Server(till) as server:
        stopped(server, till, pool, max_cost=most, backend={"concurrency": concurrency})
    assert 0.4 * most < till.charged <= most


def test_answers_that_become_long_exceed_the_limit_by_those_at_once_at_most(pool: Path) -> None:
    """After 150 answers of 30 tokens all have 1,030: no one can know."""
    till = Till(answer=lambda before: 30 if before < 150 else 1030)
    with Server(till) as server:
        stopped(server, till, pool, max_cost=0.2, backend={"concurrency": 64})
    assert till.charged <= 0.2 + 64 * till.price_of(1030)


def test_answers_of_all_lengths_hold_the_limit(pool: Path) -> None:
    chance = random.Random(0)
    till = Till(answer=lambda before: 30 + int(chance.expovariate(1 / 500)))
    with Server(till) as server:
        stopped(server, till, pool, max_cost=0.5, backend={"concurrency": 128})
    assert 0.8 * 0.5 < till.charged <= 0.5


@pytest.mark.parametrize("reasoning", [0, 1000])
def test_the_limit_holds_by_batch(reasoning: int, pool: Path) -> None:
    till = Till(reasoning=reasoning)
    most = 0.3 * 600 * till.price_of(30)
    with Server(service := PaidBatches(till)) as server:
        stopped(server, till, pool, max_cost=most, backend={"kind": "openai-batch", "poll": 0.02})
    assert 0.9 * most < till.charged <= most
    sizes = [len(service.files[batch["input_file_id"]].splitlines()) for batch in service.batches.values()]
    assert sizes[0] == 20
    assert len(sizes) == 2


def test_batches_of_answers_of_all_lengths_exceed_the_limit_by_the_first_at_most(pool: Path) -> None:
    chance = random.Random(1)
    till = Till(answer=lambda before: 30 + int(chance.expovariate(1 / 500)))
    with Server(PaidBatches(till)) as server:
        stopped(server, till, pool, max_cost=0.5, backend={"kind": "openai-batch", "poll": 0.02})
    assert 0.8 * 0.5 < till.charged <= 0.5 + 20 * till.price_of(530)


def test_three_shards_hold_the_limit_together(pool: Path) -> None:
    till = Till(reasoning=500)
    with Server(till) as server, ThreadPoolExecutor(3) as workers:

        def shard(number: int) -> None:
            own = {"shard": f"{number}/3", "out": f"out{number}", "store": str(pool.parent / "store")}
            stopped(server, till, pool, max_cost=0.5, backend={"concurrency": 32}, **own)

        list(workers.map(shard, (1, 2, 3)))  # fmt: skip
    assert 0.9 * 0.5 < till.charged <= 0.5


def test_what_is_charged_is_reported_for_each_kind_of_token(pool: Path) -> None:
    till = Till(prompt=1000, cached=900, reasoning=200, prices=(1.0, 0.1, 4.0, 8.0))
    with Server(till) as server:
        facts = rate(server, till, pool)
        assert facts["cost"] == pytest.approx(till.charged)
        assert (facts["cached_tokens"], facts["reasoning_tokens"]) == (600 * 900, 600 * 200)
        again = rate(server, till, pool, out="again", max_cost=1000.0)
    assert till.answers == 600
    assert again["cost"] == pytest.approx(till.charged)  # the store knows it too


def test_answers_without_usage_are_kept_and_counted(pool: Path) -> None:
    till = Till(usage=lambda till, answer: ["100", "30"])
    with Server(till) as server:
        facts = rate(server, till, pool)
    assert (facts["ok"], facts["answers_without_usage"], till.answers) == (600, 600, 600)
    assert facts["cost"] >= till.charged


def test_attempts_that_are_asked_again_count_at_once(pool: Path) -> None:
    till = Till(answer=128, text=lambda number: GOOD if number == 1 else "hm")  # one that is read: it may be asked on
    with Server(till) as server:
        stopped(server, till, pool, max_cost=0.2, max_failure_share=1.0, max_attempts=20, backend={"concurrency": 64})
    assert 0.9 * 0.2 < till.charged <= 0.2


def together(values: list[dict[str, Any]], pool: Path, data: list[str]) -> list[Path]:
    """Rate the pool by as many processes at once; where the results are."""
    outs = [pool.parent / f"out{number}" for number in range(len(values))]
    places = zip(values, outs, data, strict=True)
    workers = [_FORKS.Process(target=_work, args=(given, pool, out, place)) for given, out, place in places]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert {worker.exitcode for worker in workers} == {0}
    return outs


def test_equal_runs_at_once_in_different_folders_pay_once(tmp_path: Path) -> None:
    till, pool = Till(delay=0.1), pool_of(100, tmp_path)
    with Server(till) as server:
        values = [settings(server, till, max_cost=limit).model_dump() for limit in (1.0, 2.0, None)]
        outs = together(values, pool, [os.environ["XDG_DATA_HOME"]] * 3)
    assert till.answers == 100
    assert {Artifact.open(out, "ratings").manifest.content_hash for out in outs} == {
        Artifact.open(outs[0]).manifest.content_hash
    }


def test_equal_runs_on_two_machines_send_each_request_in_one_batch(tmp_path: Path) -> None:
    """Two folders of locks stand for two machines: only the journal in the common store tells them of each other."""
    till, pool = Till(), pool_of(100, tmp_path)
    service = PaidBatches(till)
    with Server(service) as server:
        own = {"kind": "openai-batch", "poll": 0.05, "batch_requests": 10}
        mine = settings(server, till, store=str(tmp_path / "store"), backend=own).model_dump()
        outs = together([mine, mine], pool, [str(tmp_path / "one"), str(tmp_path / "two")])
    assert set(service.paid.values()) == {1}
    assert (till.answers, len(service.paid)) == (100, 100)
    assert {Artifact.open(out, "ratings").manifest.facts["ok"] for out in outs} == {100}


def _work(values: dict[str, Any], pool: Path, out: Path, data: str) -> None:
    os.environ["XDG_DATA_HOME"] = data
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        run(RatingSettings.model_validate(values), pool=pool, out=out)
    except TamisError as error:
        os._exit(3 if error.code == "budget" else 4)


@pytest.mark.parametrize(("kills", "reasoning", "after"), [(12, 60, 0.0), (5, 300, 0.2)])
def test_kills_do_not_exceed_the_limit(kills: int, reasoning: int, after: float, pool: Path) -> None:
    """Of each run the answers that were under way, or not stored yet, were charged and are lost.

    Of answers beyond the limit that requests state nothing is known before the first of them has come.
    """
    till = Till(reasoning=reasoning, delay=0.05)
    most, concurrency, chance = 300 * till.price_of(30), 16, random.Random(0)
    with Server(till) as server:
        mine = settings(server, till, max_cost=most, backend={"concurrency": concurrency}).model_dump()
        for turn in range(20):
            before = till.answers
            given = (mine, pool, pool.parent / "out", os.environ["XDG_DATA_HOME"])
            worker = _FORKS.Process(target=_work, args=given)
            worker.start()
            while turn < kills and till.answers < before + 5 and worker.is_alive():
                time.sleep(0.005)
            if turn < kills and worker.is_alive():
                time.sleep(chance.uniform(after, after + 0.1))
                worker.kill()
            worker.join()
            if worker.exitcode != -signal.SIGKILL:
                break
    assert worker.exitcode == 3
    assert turn >= 4
    assert 0.4 * most < till.charged <= most + concurrency * till.price_of(30)
