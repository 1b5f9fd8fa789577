"""Compaction: many small parts become one, and no answer is lost or counted twice, whatever happens meanwhile."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis.core.errors import StorageError
from tamis.llm.store import Store, compaction, reading
from tamis.llm.store.parts import is_compacted
from tests.paper_prompt import RECORDS, Rating

KEY = {"rater": "r"}
MANY, SAMPLES = 20, 40


@pytest.fixture(autouse=True)
def _few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "MANY", MANY)
    monkeypatch.setattr("tamis.llm.store.parts._READ_PATIENCE", 0.0)


def sample(number: int) -> str:
    return f"{number:032x}"


def records(seed: int, count: int = 60) -> list[Rating]:
    """Records of all kinds, several of most samples."""
    chance = random.Random(seed)
    made = []
    for _ in range(count):
        paid = {"attempts": chance.randint(1, 3), "prompt_tokens": chance.choice([None, 100])}
        common: dict[str, Any] = {"id": sample(chance.randrange(SAMPLES))} | paid
        made.append(
            chance.choice(
                [
                    Rating(status="ok", overall=chance.randint(1, 10), expected=chance.random() * 9 + 1, **common),
                    Rating(status="unparsable", error="not JSON", raw="é\n{", **common),
                    Rating(status="failed", error="no connection", **common),
                    Rating(status="refused", error="refusal: no", shortened=True, lenient="extra keys", **common),
                ]
            )
        )
    return made


def fill(place: Path, kept: Sequence[Rating]) -> Store[Rating]:
    store = Store(place, KEY, RECORDS)
    for record in kept:
        store.append([record])
    return store


def content(place: Path) -> tuple[list[Rating | None], int]:
    stored = Store(place, KEY, RECORDS).read()
    return stored.find(pa.array([sample(number) for number in range(SAMPLES)])), stored.damaged


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.glob("*/[0-9]*"))


@pytest.mark.parametrize("seed", range(5))
def test_what_a_store_holds_is_the_same_before_and_after(tmp_path: Path, seed: int) -> None:
    store = fill(tmp_path, records(seed))
    before = content(tmp_path)
    store.compact()
    assert [is_compacted(name) for name in names(tmp_path)] == [True]
    assert content(tmp_path) == before
    later = records(seed + 100)
    fill(tmp_path, later), fill(tmp_path / "plain", [*records(seed), *later])
    assert content(tmp_path) == content(tmp_path / "plain")
    store.compact()
    assert len(names(tmp_path)) == 1  # a small one is taken into the next
    assert content(tmp_path) == content(tmp_path / "plain")


def test_nothing_is_dropped_that_later_versions_may_read_otherwise(tmp_path: Path) -> None:
    kept = records(1)
    fill(tmp_path, kept).compact()
    (part,) = tmp_path.glob("*/*.parquet")
    assert len(pq.read_table(part)) == len(kept)


def test_the_order_of_parts_counts_though_some_were_written_by_a_clock_that_is_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (tmp_path / "plain", tmp_path / "compacted"):
        with monkeypatch.context() as clock:
            clock.setattr("tamis.llm.store.folder.time.time_ns", lambda: 10**18)
            store = fill(place, records(1))
            if place.name == "compacted":
                store.compact()
            clock.setattr("tamis.llm.store.folder.time.time_ns", lambda: 10**18 - 10**9)
            fill(place, records(2))
    assert content(tmp_path / "compacted") == content(tmp_path / "plain")


def test_few_parts_stay_as_they_are(tmp_path: Path) -> None:
    fill(tmp_path, records(1, MANY - 1)).compact()
    assert not any(map(is_compacted, names(tmp_path)))


def test_batches_bound_what_becomes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "_BATCH", 2000)
    store = fill(tmp_path, records(1))
    before = content(tmp_path)
    store.compact()
    assert 2 <= len(names(tmp_path)) < MANY
    assert content(tmp_path) == before


def test_damaged_and_foreign_parts_stay_and_are_counted_as_before(tmp_path: Path) -> None:
    store = fill(tmp_path, records(1))
    damaged = sorted(tmp_path.glob("*/*.jsonl"))[3]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    data = records(2, 1)[0].model_dump_json().encode() + b'\n{"id": "of another version"}\n'
    odd = damaged.with_name(f"{5:020d}-{hashlib.sha256(data).hexdigest()[:16]}.jsonl")
    odd.write_bytes(data)
    (damaged.parent / "notes.txt").write_text("mine")
    before = content(tmp_path)
    assert before[1] == 2  # notes are no part
    store.compact()
    left = [name for name in names(tmp_path) if not is_compacted(name)]
    assert left == sorted([odd.name, damaged.name])
    assert content(tmp_path) == before


def test_a_part_that_cannot_be_read_weighs_the_same_before_and_after(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Beside a folder of somebody's notes, which is no part."""
    store = fill(tmp_path, records(1))
    part = sorted(tmp_path.glob("*/*.jsonl"))[3]
    part.unlink()
    part.mkdir()  # as one that the disk gives an error for
    (part.parent / "notes").mkdir()
    before = content(tmp_path)
    assert (before[1], caplog.text.count("notes")) == (1, 1)
    store.compact()
    assert len(names(tmp_path)) == 2
    assert content(tmp_path) == before


def _compact_until(step: int, place: Path) -> None:
    """Compact, and be killed before the deed number `step` on the folder."""
    deeds = 0

    def counted(deed: Callable[..., Any]) -> Callable[..., Any]:
        def done(*given: Any) -> Any:
            nonlocal deeds
            deeds += 1
            if deeds == step:
                os._exit(9)
            return deed(*given)

        return done

    os.replace = counted(os.replace)  # the new part gets its name
    compaction.read_bytes = counted(compaction.read_bytes)
    os.unlink = counted(os.unlink)  # one of the parts goes
    Store(place, KEY, RECORDS).compact()
    os._exit(0)


def test_a_kill_between_any_two_steps_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "MANY", 8)
    fork = multiprocessing.get_context("fork")
    kept = records(3, 10)
    for name in ("first", "second"):
        fill(tmp_path / name, kept)
    truth, codes = content(tmp_path / "first"), []
    for step in range(1, 16):
        place = tmp_path / str(step)
        shutil.copytree(tmp_path / "first", place)
        child = fork.Process(target=_compact_until, args=(step, place))
        child.start()
        child.join()
        codes.append(child.exitcode)
        assert content(place) == truth
        # Enough for another compaction, by the process that comes after.
        shutil.copytree(tmp_path / "second", place, dirs_exist_ok=True)
        Store(place, KEY, RECORDS).compact()
        assert content(place)[0] == truth[0]
        assert len(names(place)) == 1
    assert codes[:3] == [9, 9, 9]
    assert codes[-1] == 0


def test_two_that_compact_at_once_while_others_write_lose_nothing(tmp_path: Path) -> None:
    rounds, workers = 6, 3
    faults: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for number in range(rounds):
                fill(tmp_path, records(10 * worker + number))
                Store(tmp_path, KEY, RECORDS).compact()
                assert Store(tmp_path, KEY, RECORDS).read().damaged == 0
        except BaseException as error:
            faults.append(error)

    compacting = [threading.Thread(target=work, args=(worker,)) for worker in range(workers)]
    for thread in compacting:
        thread.start()
    for thread in compacting:
        thread.join()
    assert not faults
    held = [line for part in tmp_path.glob("*/*.jsonl") for line in part.read_text().splitlines()]
    rows = [json.loads(line) for line in held]
    for part in tmp_path.glob("*/*.parquet"):
        rows += pq.read_table(part, columns=RECORDS.schema.names).to_pylist()
    wanted = [record for worker in range(workers) for n in range(rounds) for record in records(10 * worker + n)]
    assert {_shown(row) for row in rows} == {_shown(one.model_dump()) for one in wanted}


def _shown(record: dict[str, Any]) -> str:
    expected = record["expected"]
    return repr(sorted((record | {"expected": expected and float(np.float32(expected))}).items()))


def test_a_compactor_that_finds_parts_gone_leaves_them_to_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fill(tmp_path, records(1))
    before = content(tmp_path)
    names_of = compaction.own_names

    def listed(folder: Any) -> list[str]:
        found = names_of(folder)
        monkeypatch.setattr(compaction, "own_names", names_of)
        Store(tmp_path, KEY, RECORDS).compact()
        return found

    monkeypatch.setattr(compaction, "own_names", listed)
    store.compact()
    assert len(names(tmp_path)) == 1
    assert content(tmp_path) == before


@pytest.mark.parametrize("times", [1, 2])
def test_a_reader_that_listed_before_finds_what_was_compacted_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Once; or twice, so that what the first made is gone as well."""
    monkeypatch.setattr("tamis.llm.store.parts._READ_PATIENCE", 30.0)
    fill(tmp_path, records(1))
    if times == 2:
        Store(tmp_path, KEY, RECORDS).compact()
        fill(tmp_path, records(2))
    before = content(tmp_path)
    names_of = reading.own_names

    def listed(folder: Any) -> list[str]:
        found = names_of(folder)
        monkeypatch.setattr(reading, "own_names", names_of)
        Store(tmp_path, KEY, RECORDS).compact()
        return found

    monkeypatch.setattr(reading, "own_names", listed)
    assert content(tmp_path) == before
    assert len(names(tmp_path)) == 1


def test_a_list_that_has_neither_old_parts_nor_the_new_one_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, records(1)).compact()
    before, names_of = content(tmp_path), reading.own_names

    def listed(folder: Any) -> list[str]:
        monkeypatch.setattr(reading, "own_names", names_of)
        return []

    monkeypatch.setattr(reading, "own_names", listed)
    assert content(tmp_path) == before


def test_a_part_that_somebody_removes_meanwhile_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, records(1))
    names_of = reading.own_names

    def listed(folder: Any) -> list[str]:
        found = names_of(folder)
        monkeypatch.setattr(reading, "own_names", names_of)
        (folder / found[0]).unlink()
        return found

    monkeypatch.setattr(reading, "own_names", listed)
    assert content(tmp_path)[1] == 1


def test_a_compacted_part_that_is_damaged_ends_the_run(tmp_path: Path) -> None:
    store = fill(tmp_path, records(1))
    store.compact()
    (part,) = tmp_path.glob("*/*.parquet")
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(StorageError) as raised:
        store.read()
    assert str(part) in raised.value.problem


def test_a_store_that_cannot_be_written_is_read_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fill(tmp_path, records(1))
    before = content(tmp_path)

    def refuse(*_: object) -> None:
        raise StorageError("read-only")

    for deed, count in (("write_bytes", 60), ("remove_all", 61)):
        with monkeypatch.context() as broken:
            broken.setattr(compaction, deed, refuse)
            store.compact()
            store.compact()  # what cannot be removed does not grow
        assert len(names(tmp_path)) == count
        assert content(tmp_path) == before


def test_a_part_that_does_not_come_back_as_it_was_written_replaces_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fill(tmp_path, records(1))
    monkeypatch.setattr(compaction, "read_bytes", lambda location: b"")
    store.compact()
    assert len(list(tmp_path.glob("*/*.jsonl"))) == 60
