"""Ratings in real object storage: the durable store, and files to import."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest

from tamis.core.artifacts import Artifact
from tamis.core.errors import StorageError
from tamis.core.settings import parse
from tamis.core.storage import Location, children, locate, names_in, write_bytes
from tamis.llm.store import Store, Writer, compaction, reading
from tamis.rating.settings import RatingSettings
from tamis.rating.stage import run
from tests.artifacts import conversation, make_pool
from tests.llm_server import Reaction, completion
from tests.llm_server import Server as LlmServer
from tests.paper_prompt import RECORDS, Rating
from tests.storage.conftest import Server, reach
from tests.storage.unreliable import Unreliable

KEY = {"rater": "r"}
OUTAGE = float(os.environ.get("TAMIS_TEST_OUTAGE", "3"))  # seconds


def rating(number: int) -> Rating:
    return Rating(id=f"{number:032x}", status="ok", overall=number % 10 + 1, attempts=1)


def test_ratings_in_object_storage_come_back(remote: str) -> None:
    with Writer(Store(remote, KEY, RECORDS), count=10) as writer:
        for number in range(25):
            writer.add(rating(number))
    Store(remote, {"rater": "another"}, RECORDS).append([rating(99)])
    stored = Store(remote, KEY, RECORDS).read()
    wanted = [rating(number) for number in (24, 3, 0)]
    assert stored.find(pa.array([one.id for one in wanted])) == wanted
    assert (len(stored), stored.damaged) == (25, 0)


def test_a_damaged_part_in_object_storage_is_left_out(remote: str) -> None:
    store = Store(remote, KEY, RECORDS)
    store.append([rating(1)])
    store.append([rating(2)])
    part = next(f for folder in children(locate(remote)) for f in children(folder) if f.name.endswith(".jsonl"))
    write_bytes(part, b"{}")
    stored = Store(remote, KEY, RECORDS).read()
    assert (len(stored), stored.damaged) == (1, 1)


@pytest.mark.parametrize("listed", ["before", "after"])
def test_a_store_in_object_storage_is_compacted(remote: str, listed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader finds the same, whether it listed the parts before they were compacted or after."""
    monkeypatch.setattr(compaction, "MANY", 10)
    kept = [rating(number) for number in range(12)]
    store, names_of = Store(remote, KEY, RECORDS), reading.own_names
    for one in kept:
        store.append([one])
    (folder,) = (one for one in children(locate(remote)) if len(one.name) == 32)

    def names(place: Location) -> list[str]:
        found = names_of(place)
        monkeypatch.setattr(reading, "own_names", names_of)
        store.compact()
        return found

    if listed == "before":
        monkeypatch.setattr(reading, "own_names", names)
    else:
        store.compact()
    stored = Store(remote, KEY, RECORDS).read()
    assert (len(stored), stored.damaged) == (12, 0)
    assert stored.find(pa.array([one.id for one in kept])) == kept
    assert [name.rpartition(".")[2] for name in names_in(folder)] == ["parquet", "json"]


@pytest.mark.timeout(120 + 4 * OUTAGE)
def test_storage_that_fails_one_request_in_five_and_then_vanishes_loses_nothing(
    remote: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openai")
    samples = [conversation(f"What is {number}?", f"A number, {number}.") for number in range(int(120 + 40 * OUTAGE))]
    pool = make_pool(tmp_path / "pool", samples)
    with (
        Unreliable(server.port, every=5) as proxy,
        LlmServer(lambda _: answer_after(0.1)) as service,
    ):
        reach(server, monkeypatch, proxy.endpoint, attempts=8)  # as without a test
        backend = {"kind": "openai", "model": "m", "base_url": service.url, "api_key_env": None, "concurrency": 4}
        values = {"name": "mini", "backend": backend, "store": f"{remote}/store"}
        settings = parse(RatingSettings, values, where="here")
        asked_at: list[int] = []

        def outage() -> None:
            while proxy.written < 2:  # a store that never worked is an error at once
                time.sleep(0.05)
            proxy.vanish()
            asked_at.append(len(service.asked))
            time.sleep(OUTAGE)
            asked_at.append(len(service.asked))
            proxy.come_back()

        gone = threading.Thread(target=outage, daemon=True)
        gone.start()
        manifest = run(settings, pool=pool, out=tmp_path / "out")
        gone.join()
        again = run(settings, pool=pool, out=tmp_path / "again")
    print(
        f"{proxy.failed} of {proxy.requests} requests failed, {asked_at[1] - asked_at[0]} asked in {OUTAGE:g} s without"
    )
    assert proxy.failed >= 2
    assert asked_at[1] > asked_at[0]  # rating goes on while storage is gone
    assert (manifest.facts["ok"], again.facts["reused"]) == (len(samples), len(samples))
    assert len(service.asked) == len(samples)


def answer_after(seconds: float) -> Reaction:
    return Reaction(completion(), delay=seconds)


def test_a_store_in_no_bucket_is_a_storage_error(remote: str) -> None:
    with pytest.raises(StorageError, match="no-such-bucket"):
        Store(f"{remote[:5]}no-such-bucket/ratings", KEY, RECORDS).read()


def test_ratings_are_imported_from_object_storage(remote: str, tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", [conversation(f"Q{n}", f"A{n}") for n in range(3)])
    write_bytes(locate(f"{remote}/scores.csv"), b"overall\n3\n2\n1\n")
    values = {"name": "theirs", "backend": {"kind": "import", "path": f"{remote}/scores.csv", "by": "row"}}
    run(parse(RatingSettings, values, where="here"), pool=pool, out=f"{remote}/ratings")
    table = Artifact.open(f"{remote}/ratings", "ratings", cache=tmp_path).table()
    assert table["overall"].to_pylist() == [3, 2, 1]
    values["backend"] = {"kind": "import", "path": f"{remote}/nothing.csv", "by": "row"}
    with pytest.raises(StorageError, match=r"nothing\.csv does not exist"):
        run(parse(RatingSettings, values, where="here"), pool=pool, out=tmp_path / "out")
