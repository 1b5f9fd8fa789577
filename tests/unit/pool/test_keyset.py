"""Sets of ids and draws by id agree with naive versions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.core.ids import Keys, pack, tie_breaks
from tamis.core.tables import POOL
from tamis.pool.draw import Draw
from tamis.pool.keyset import KeySet


def keys_of(ids: list[str]) -> Keys:
    return pack(pa.array(ids, pa.string()), where="the test")


# Few values, some with zero bytes at their ends, so that there are many equal ones.
hexes = st.sampled_from(
    [f"{i % 3:02x}" * 8 + f"{i:016x}" for i in range(20)] + ["0" * 32, "00" * 15 + "01", "01" + "00" * 15]
)


@given(batches=st.lists(st.lists(hexes, max_size=30), max_size=12))
def test_the_set_says_what_is_new_as_a_python_set_does(batches: list[list[str]]) -> None:
    compact, naive = KeySet(), set[str]()
    for batch in batches:
        expected = []
        for value in batch:
            expected.append(value not in naive)
            naive.add(value)
        digests = keys_of(batch)
        new = compact.new(digests)
        assert new.tolist() == expected
        compact.add(digests[new])
    assert len(compact) == len(naive)


def test_asking_changes_nothing() -> None:
    digests, compact = keys_of(["ab" * 16, "cd" * 16]), KeySet()
    compact.add(digests[:1])
    for _ in range(2):
        assert compact.new(digests).tolist() == [False, True]


def test_a_million_ids_take_16_mb() -> None:
    generator, compact = np.random.default_rng(0), KeySet()
    for _ in range(128):
        compact.add(np.frombuffer(generator.bytes(16 * 8192), dtype="S16"))
    assert len(compact) == 2**20
    assert sum(run.nbytes for run in compact._runs) == 2**24
    assert len(compact._runs) < 12


def test_keys_are_spread_evenly_and_differ_between_seeds() -> None:
    digests = np.frombuffer(np.random.default_rng(0).bytes(16 * 50_000), dtype="S16")
    one, two = (tie_breaks(digests, seed) / 2**64 for seed in (0, 1))
    for keys in (one, two):
        counts, _ = np.histogram(keys, bins=50, range=(0, 1))
        assert ((counts - 1000) ** 2 / 1000).sum() < 95  # chi-square with 49 degrees of freedom: p = 0.0001
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.02
    counting = keys_of([f"{i:032x}" for i in range(50_000)])  # ids that are nothing like random
    assert abs(tie_breaks(counting, 0).astype(float).mean() / 2**64 - 0.5) < 0.01


def table_of(ids: list[str]) -> pa.Table:
    rows = [{"id": i, "source": "s", "messages": [], "origin": n, "metadata": None} for n, i in enumerate(ids)]
    return pa.Table.from_pylist(rows, schema=POOL)


@pytest.mark.parametrize("size", [1, 7, 100, 999, 1000, 5000])
def test_a_draw_has_the_ids_with_the_smallest_keys(tmp_path: Path, size: int) -> None:
    ids = [f"{i:032x}" for i in range(1000)]
    with Draw(size, 3, tmp_path / "spool") as draw:
        new = sum(draw.offer(table_of(ids[i : i + 64]), keys_of(ids[i : i + 64])) for i in range(0, 1000, 64))
        new += draw.offer(table_of(ids[:50]), keys_of(ids[:50]))
        drawn = [value for table in draw.drawn() for value in table["id"].to_pylist()]
    assert new == 1000
    smallest = np.argsort(tie_breaks(keys_of(ids), 3), kind="stable")[:size]
    assert drawn == [ids[i] for i in sorted(smallest)]
    assert not (tmp_path / "spool").exists()


def test_a_draw_keeps_little_more_than_it_may_need(tmp_path: Path) -> None:
    ids = [f"{i:032x}" for i in range(20_000)]
    with Draw(100, 0, tmp_path / "spool") as draw:
        for i in range(0, len(ids), 500):
            draw.offer(table_of(ids[i : i + 500]), keys_of(ids[i : i + 500]))
        assert draw._spool.rows < 1500


def test_a_draw_begins_anew_after_a_kill(tmp_path: Path) -> None:
    ids = [f"{i:032x}" for i in range(10)]
    killed = Draw(3, 0, tmp_path / "spool")
    killed.__enter__()
    killed.offer(table_of(ids), keys_of(ids))
    killed._spool.__exit__(None, None, None)
    with Draw(3, 0, tmp_path / "spool") as draw:
        draw.offer(table_of(ids[:4]), keys_of(ids[:4]))
        assert sum(table.num_rows for table in draw.drawn()) == 3
