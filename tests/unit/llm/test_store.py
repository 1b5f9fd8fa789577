"""The durable store: nothing that was added is lost, whatever happens, and nothing foreign is taken for a rating."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tamis.core.errors import StorageError
from tamis.llm.store import Store, Writer
from tests.paper_prompt import RECORDS, Rating

KEY = {"rater": "r"}


def sample(number: int) -> str:
    return f"{number:032x}"


def rating(number: int, overall: int | None = 5, **values: object) -> Rating:
    status = "ok" if overall is not None else "unparsable"
    return Rating.model_validate({"id": sample(number), "status": status, "overall": overall, "attempts": 1} | values)


def found(store: Store, numbers: Sequence[int]) -> list[Rating | None]:
    return store.read().find(pa.array([sample(number) for number in numbers], pa.string()))


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.jsonl"))


def test_ratings_come_back_by_id_in_the_order_asked(tmp_path: Path) -> None:
    kept = [
        rating(3, 7, expected=6.5, rarity=1, prompt_tokens=10, shortened=True),
        rating(1, None, error="not JSON", attempts=3),
        rating(2, 10),
    ]
    Store(tmp_path, KEY, RECORDS).append(kept[:2])
    Store(tmp_path, KEY, RECORDS).append(kept[2:])
    assert found(Store(tmp_path, KEY, RECORDS), [1, 2, 9, 3]) == [kept[1], kept[2], None, kept[0]]


def test_only_wanted_records_are_kept_in_memory(tmp_path: Path) -> None:
    store = Store(tmp_path, KEY, RECORDS)
    store.append([rating(number) for number in range(4)])
    store.append([rating(1, 9), rating(5)])
    odd = store.read(lambda ids: np.array([int(one, 16) % 2 == 1 for one in ids.to_pylist()]))
    assert len(odd) == 3
    assert odd.find(pa.array([sample(1), sample(2)])) == [rating(1, 9), None]


def test_an_empty_store_has_nothing(tmp_path: Path) -> None:
    assert found(Store(tmp_path / "nowhere", KEY, RECORDS), [1, 2]) == [None, None]


def test_of_two_ratings_of_a_sample_the_later_counts(tmp_path: Path) -> None:
    store = Store(tmp_path, KEY, RECORDS)
    store.append([rating(1, None), rating(2, 2)])
    store.append([rating(1, 4), rating(1, 6)])
    assert found(store, [1, 2]) == [rating(1, 6), rating(2, 2)]
    assert len(store.read()) == 2


def test_a_final_rating_counts_whatever_the_clocks_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose clock is an hour ahead noted attempts that did not parse; another one then got ratings."""
    ahead, behind = Store(tmp_path, KEY, RECORDS), Store(tmp_path, KEY, RECORDS)
    now = time.time_ns()
    monkeypatch.setattr("tamis.llm.store.folder.time.time_ns", lambda: now + 3600 * 10**9)
    ahead.append([rating(1, None), rating(2, None, attempts=2), rating(3, None), refused(4), rating(5, 3)])
    monkeypatch.setattr("tamis.llm.store.folder.time.time_ns", lambda: now)
    behind.append([rating(1, 7), rating(2, None, attempts=1), refused(3), rating(4, 8), rating(5, 4)])
    kept = [rating(1, 7), rating(2, None, attempts=2), refused(3), rating(4, 8), rating(5, 3)]
    assert found(Store(tmp_path, KEY, RECORDS), range(1, 6)) == kept


def refused(number: int) -> Rating:
    return Rating(id=sample(number), status="refused", error="refusal: no", attempts=1)


def test_other_keys_do_not_meet(tmp_path: Path) -> None:
    Store(tmp_path, {"rater": "a"}, RECORDS).append([rating(1, 4)])
    Store(tmp_path, {"rater": "b"}, RECORDS).append([rating(1, 8)])
    assert found(Store(tmp_path, {"rater": "a"}, RECORDS), [1]) == [rating(1, 4)]
    assert found(Store(tmp_path, {"rater": "c"}, RECORDS), [1]) == [None]
    assert sorted(path.read_text() for path in tmp_path.glob("*/key.json")) == ['{"rater":"a"}\n', '{"rater":"b"}\n']


@pytest.mark.parametrize("cut", [1, 40])
def test_a_damaged_part_is_left_out_and_counted(tmp_path: Path, cut: int, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path, KEY, RECORDS)
    store.append([rating(1)])
    store.append([rating(2)])
    first = parts(tmp_path)[0]
    first.write_bytes(first.read_bytes()[:-cut])
    stored = store.read()
    assert (len(stored), stored.damaged) == (1, 1)
    assert found(store, [1, 2]) == [None, rating(2)]
    assert str(first) in caplog.text


def test_a_score_that_was_altered_is_damage(tmp_path: Path) -> None:
    store = Store(tmp_path, KEY, RECORDS)
    store.append([rating(1, 5)])
    (part,) = parts(tmp_path)
    part.write_text(part.read_text().replace('"overall":5', '"overall":9'))
    assert store.read().damaged == 1


def test_foreign_files_are_named_and_not_read_and_unfinished_writes_are_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path, KEY, RECORDS)
    store.append([rating(1)])
    folder = parts(tmp_path)[0].parent
    (folder / "notes.txt").write_text("mine")
    (folder / f".{parts(tmp_path)[0].name}.abc123").write_text('{"id":')
    stored = store.read()
    assert (len(stored), stored.damaged) == (1, 0)
    assert [one.getMessage().rpartition(": ")[2] for one in caplog.records] == ["notes.txt"]


def test_what_killed_writers_left_is_removed_after_a_day_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path, KEY, RECORDS)
    store.append([rating(1)])
    folder, digits = parts(tmp_path)[0].parent, "0123456789abcdef" * 2
    old = [f".{parts(tmp_path)[0].name}.{digits}", f"..probe.{digits}", ".mine", f"notes.{digits}"]
    young = f".key.json.{digits}"
    for name in [*old, young]:
        (folder / name).write_bytes(b"x")
    for name in [*old, parts(tmp_path)[0].name]:
        os.utime(folder / name, (time.time() - 90_000,) * 2)
    os.utime(folder / young, (time.time() - 80_000,) * 2)  # a writer that may still live
    store.prepare()
    left = {path.name for path in folder.iterdir()}
    assert left == {"key.json", ".mine", f"notes.{digits}", young, parts(tmp_path)[0].name}
    assert found(store, [1]) == [rating(1)]


def test_a_part_of_another_version_is_left_out_and_counted(tmp_path: Path) -> None:
    store = Store(tmp_path, KEY, RECORDS)
    store.append([rating(1)])
    data = b'{"id":"' + sample(2).encode() + b'","score":5}\n'
    name = f"{0:020d}-{hashlib.sha256(data).hexdigest()[:16]}.jsonl"
    (parts(tmp_path)[0].parent / name).write_bytes(data)
    stored = store.read()
    assert (len(stored), stored.damaged) == (1, 1)


@pytest.mark.parametrize(
    "poison",
    [
        b'"prompt_tokens":3000000000',
        b'"attempts":70000',
        b'"prompt_tokens":-1',
        b'"overall":11',
        b'"id":"x"',
        b'"error":"\\ud800"',
        b'"a":' + b"[" * 100_000,
    ],
)
def test_one_record_that_cannot_be_read_takes_no_other_with_it(
    tmp_path: Path, poison: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path, KEY, RECORDS)
    store.append([rating(1)])
    good = [rating(number).model_dump_json().encode() for number in (2, 3)]
    name = poison.split(b":")[0].strip(b'"').decode()
    fields = json.loads(good[0]) | {"id": sample(9)}
    fields.pop(name, None)
    bad = json.dumps(fields).encode()[:-1] + b"," + poison + b"}"
    data = b"".join(line + b"\n" for line in (good[0], bad, good[1]))
    name = f"{0:020d}-{hashlib.sha256(data).hexdigest()[:16]}.jsonl"
    (parts(tmp_path)[0].parent / name).write_bytes(data)
    stored = store.read()
    assert (len(stored), stored.damaged) == (3, 1)
    assert found(store, [1, 2, 3, 9]) == [rating(1), rating(2), rating(3), None]
    assert name in caplog.text


def test_many_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    def write(worker: int) -> None:
        store = Store(tmp_path, KEY, RECORDS)
        for number in range(10):
            store.append([rating(100 * worker + number)])

    workers = [threading.Thread(target=write, args=(worker,)) for worker in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    stored = Store(tmp_path, KEY, RECORDS).read()
    assert (len(stored), stored.damaged) == (80, 0)


def test_a_rating_is_durable_though_the_rater_falls_silent(tmp_path: Path) -> None:
    with Writer(Store(tmp_path, KEY, RECORDS), seconds=0.05) as writer:
        writer.add(rating(1))
        give_up = time.monotonic() + 20
        while not parts(tmp_path) and time.monotonic() < give_up:
            time.sleep(0.01)
        assert found(Store(tmp_path, KEY, RECORDS), [1]) == [rating(1)]


def test_many_ratings_are_written_before_the_time_is_up(tmp_path: Path) -> None:
    with Writer(Store(tmp_path, KEY, RECORDS), seconds=600, count=10) as writer:
        for number in range(10):
            writer.add(rating(number))
        give_up = time.monotonic() + 20
        while not parts(tmp_path) and time.monotonic() < give_up:
            time.sleep(0.01)
        assert len(Store(tmp_path, KEY, RECORDS).read()) == 10


def fail_after_one(store: Store) -> None:
    with Writer(store, seconds=600) as writer:
        writer.add(rating(1))
        raise ZeroDivisionError


def test_an_error_of_the_rater_loses_no_finished_rating(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fail_after_one(Store(tmp_path, KEY, RECORDS))
    assert found(Store(tmp_path, KEY, RECORDS), [1]) == [rating(1)]


def add_until_it_fails(store: Store) -> None:
    give_up = time.monotonic() + 20
    with Writer(store, seconds=0.01) as writer:
        while not writer.failed() and time.monotonic() < give_up:
            writer.add(rating(1))
            time.sleep(0.01)


def add_one(store: Store) -> None:
    with Writer(store, seconds=600) as writer:
        writer.add(rating(1))


@pytest.mark.parametrize("use", [add_until_it_fails, add_one])
def test_a_store_that_cannot_be_written_stops_the_work(tmp_path: Path, use: Callable[[Store], None]) -> None:
    (tmp_path / "store").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="store"):
        use(Store(tmp_path / "store", KEY, RECORDS))


class Failing(Store):
    """A store that fails at some of its writes."""

    def __init__(self, folder: Path, faults: set[int]) -> None:
        super().__init__(folder, KEY, RECORDS)
        self.faults, self.writes, self.most = faults, 0, 0

    def append(self, ratings: Sequence[Rating]) -> None:
        self.writes += 1
        self.most = max(self.most, len(ratings))
        if self.writes in self.faults:
            raise StorageError("the store is gone")
        super().append(ratings)


def test_a_store_that_is_gone_for_a_while_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tamis.llm.store.waits._AGAIN_AFTER", 0.02)
    store = Failing(tmp_path, {2, 3, 4, 5, 6, 9})
    with Writer(store, seconds=0.01, count=10, most=30) as writer:
        for number in range(300):
            writer.add(rating(number))
            time.sleep(0.0005)
    stored = Store(tmp_path, KEY, RECORDS).read()
    assert (len(stored), stored.damaged) == (300, 0)
    assert store.writes > 9
    assert store.most <= 30  # the giver was made to wait


def test_a_store_that_stays_away_stops_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tamis.llm.store.waits._AGAIN_AFTER", 0.02)
    store = Failing(tmp_path, set(range(2, 1000)))

    def use() -> None:
        with Writer(store, seconds=0.01, count=10, most=20, patience=0.2) as writer:
            for number in range(10_000):
                if writer.failed():
                    return
                writer.add(rating(number))
                time.sleep(0.0005)

    with pytest.raises(StorageError, match="the store is gone"):
        use()
    assert len(Store(tmp_path, KEY, RECORDS).read()) >= 1


def test_an_answer_that_was_paid_and_not_understood_counts_the_attempts_before_it(tmp_path: Path) -> None:
    """Whichever of the two was written last, by whatever clock."""
    first = rating(1, None, error="not JSON", attempts=1, prompt_tokens=100)
    second = Rating(id=sample(1), status="failed", error="not understood", attempts=2, prompt_tokens=200, raw="{}")
    away = Rating(id=sample(1), status="failed", error="no connection", attempts=3)
    for number, order in enumerate(([first, second, away], [second, first, away], [away, first, second])):
        store = Store(tmp_path / str(number), KEY, RECORDS)
        for record in order:
            store.append([record])
        assert found(store, [1]) == [second]
