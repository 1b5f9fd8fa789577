"""Answers outlive the run that paid for them, wherever its settings say nothing of a store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tamis.core.artifacts import Artifact
from tamis.core.errors import ModelError
from tamis.core.settings import hash_of, parse
from tamis.llm.machine import place_of_answers, store_of_run, user_data
from tamis.rating import rater
from tamis.rating.settings import RatingSettings
from tamis.rating.stage import run
from tests.artifacts import conversation, make_pool
from tests.llm_server import Asked, Reaction, Server, Till, completion
from tests.paper_prompt import Scores, write
from tests.unit.llm.test_openai_batch import PaidBatches

pytest.importorskip("openai")


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return make_pool(tmp_path / "pool", [conversation(f"What is {n}?", f"A number, {n}.") for n in range(200)])


def rate(server: Server, pool: Path, out: str, *, kind: str = "openai", **own: Any) -> Any:
    backend = {"kind": kind, "model": "m", "base_url": server.url, "api_key_env": None, "concurrency": 16}
    backend |= {"poll": 0.02} if kind == "openai-batch" else {}
    values = {"name": "mini", "backend": backend | own.pop("backend", {})} | own
    return run(parse(RatingSettings, values, where="here"), pool=pool, out=pool.parent / out).facts


@pytest.mark.parametrize("kind", ["openai", "openai-batch"])
def test_raising_the_limit_pays_for_nothing_twice(kind: str, pool: Path) -> None:
    till = Till()
    with Server(till if kind == "openai" else PaidBatches(till)) as server:
        for most in (0.2, 0.5):
            with pytest.raises(ModelError) as raised:
                rate(server, pool, "out", kind=kind, price=till.settings, max_cost=most * 200 * till.price_of(30))
            assert raised.value.code == "budget"
        facts = rate(server, pool, "out", kind=kind, price=till.settings, max_cost=5.0)
    assert till.answers == 200
    assert facts["cost"] == pytest.approx(till.charged)
    assert facts["reused"] > 40


def test_tolerating_more_failures_pays_for_nothing_twice(pool: Path) -> None:
    def behave(asked: Asked) -> Reaction:
        return Reaction(completion("", refusal="I will not.") if asked.number % 2 else completion())

    with Server(behave) as server:
        with pytest.raises(ModelError) as raised:
            rate(server, pool, "out", max_failure_share=0.1)
        assert raised.value.code == "failures"
        first = len(server.asked)
        rate(server, pool, "out", max_failure_share=0.6)
        assert first >= 20
        assert len(server.asked) == 200
        # Whatever says how is asked, and not what, is no part of what answers are known by.
        backend = {"concurrency": 3, "timeout": 7.0, "tries": 2, "patience": 5.0}
        other = rate(
            server, pool, "other", max_failure_share=0.7, max_cost=9.0, price={"input": 1, "output": 1}, backend=backend
        )
    assert (other["asked"], len(server.asked)) == (0, 200)


@pytest.mark.parametrize("named_before", [False, True])
def test_a_rater_of_another_name_pays_for_nothing_twice(
    pool: Path, named_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    till = Till()
    with Server(till) as server:
        if named_before:  # as versions did whose keys had the rater's name
            own_key = rater._key
            with monkeypatch.context() as older:
                older.setattr(rater, "_key", lambda settings, *other: {"rater": "mini"} | own_key(settings, *other))
                rate(server, pool, "one")
        else:
            rate(server, pool, "one")
        assert till.answers == 200
        name = "mini" if named_before else "other"
        facts = rate(server, pool, "two", name=name, max_failure_share=0.06)
    assert till.answers == 200
    assert (facts["reused"], facts["asked"], facts["ok"]) == (200, 0, 200)


def test_an_upgrade_keeps_a_raters_own_answers_and_counts_the_money_that_it_may_have_spent(
    pool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions whose keys had the rater's name left answers and notes of money under these keys."""
    own_key, score, store = rater._key, [2], pool.parent / "store"
    paid = {"price": {"input": 1, "output": 1}, "store": str(store), "max_cost": 9.0}

    def with_name(settings: RatingSettings, *other: Any) -> dict[str, object]:
        return {"rater": settings.name} | own_key(settings, *other)

    with Server(lambda _: Reaction(completion(write(Scores(*score * 4))))) as server:
        with monkeypatch.context() as older:
            older.setattr(rater, "_key", with_name)
            cost = rate(server, pool, "one", **paid)["cost"]
        (named,) = [one.parent for one in store.rglob("key.json")]
        score[:] = [7]
        rate(server, pool, "theirs", name="another", **paid)
        scope = hash_of([Artifact.open(pool).manifest.content_hash, None])[:32]
        note = named.with_name(f"{named.name}-journal") / "money" / f"{scope}-killed.json"
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text('{"may_have_spent_without_a_record": 0.5, "largest_answer": 0.001}')
        facts = rate(server, pool, "two", **paid)
    assert len(server.asked) == 400
    ratings = [Artifact.open(pool.parent / out, "ratings").table(["overall"])["overall"] for out in ("one", "two")]
    assert [set(column.to_pylist()) for column in ratings] == [{2}, {2}]
    assert facts["cost"] == pytest.approx(cost + 0.5)


def test_the_command_finds_what_a_stopped_one_has_paid_for(pool: Path) -> None:
    till = Till()
    with Server(till) as server:
        backend = {"kind": "openai", "model": "m", "base_url": server.url, "api_key_env": None}
        values = {"name": "mini", "backend": backend, "price": till.settings}
        (pool.parent / "rater.yaml").write_text(yaml.safe_dump(values))
        codes = []
        for most, out in ((0.01, "one"), (5.0, "two")):
            given = ["--settings", "rater.yaml", "--set", f"max_cost={most}", "--pool", "pool", "--out", out]
            command = [sys.executable, "-m", "tamis", "rate", *given]
            done = subprocess.run(command, cwd=pool.parent, capture_output=True, text=True, check=False)
            codes.append(done.returncode)
    assert codes == [78, 0], done.stderr
    assert till.answers == 200


def test_where_answers_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place_of_answers("ratings", "s3://bucket/mine") == "s3://bucket/mine"
    assert place_of_answers("ratings", None) == Path(os.environ["XDG_DATA_HOME"], "tamis", "ratings")
    monkeypatch.setenv("TAMIS_HOME", str(tmp_path / "home"))
    assert place_of_answers("judging", None) == tmp_path / "home" / "judging"
    monkeypatch.setenv("TAMIS_STORE", "s3://bucket/all")
    assert place_of_answers("judging", None) == "s3://bucket/all/judging"
    assert place_of_answers("judging", None, "http://a/v1") != place_of_answers("judging", None, "http://b/v1")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_data() == tmp_path / ".local" / "share" / "tamis"


def test_servers_that_call_all_their_models_by_one_name_are_not_taken_for_each_other(pool: Path) -> None:
    """Where the settings name a store, they say that the same name is the same model."""
    for store, asked in ((None, [200, 200]), (str(pool.parent / "mine"), [200, 0])):
        with Server() as one, Server() as other:
            own = {} if store is None else {"store": store}
            for server in (one, other):
                rate(server, pool, f"out{server.port}{store is None}", **own)
            assert [len(server.asked) for server in (one, other)] == asked


def test_a_run_of_the_version_before_stays_with_what_it_has_paid_for(tmp_path: Path) -> None:
    assert store_of_run(tmp_path) == str(user_data())
    (tmp_path / "judging").mkdir()
    assert store_of_run(tmp_path) is None
