"""Ids as fixed-width keys."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.core.errors import InputError
from tamis.core.ids import pack, positions, read_keys, repeated, tie_breaks, unpack
from tamis.core.samples import sample_id
from tests.artifacts import conversation

KEYS = st.lists(st.binary(min_size=16, max_size=16), max_size=30, unique=True)


@given(KEYS)
def test_unpacking_packed_ids_gives_them_back(keys: list[bytes]) -> None:
    ids = pa.array([key.hex() for key in keys], pa.string())
    assert unpack(pack(ids, where="test")).equals(ids)


@given(st.lists(st.sampled_from([bytes([i, *[0] * 7, j, *[0] * 7]) for i in range(3) for j in range(3)])))
def test_repeats_are_all_but_the_first_of_equal_ones(keys: list[bytes]) -> None:
    expected = [row for row, key in enumerate(keys) if key in keys[:row]]
    assert repeated(np.array(keys, "S16")).tolist() == expected


def test_keys_of_a_file_are_in_its_order(tmp_path: Path) -> None:
    ids = [f"{number:032x}" for number in (3, 1, 2)]
    pq.write_table(pa.table({"id": ids}), tmp_path / "ids.parquet")
    assert unpack(read_keys(tmp_path / "ids.parquet", where="test")).to_pylist() == ids
    pq.write_table(pa.table({"id": pa.array([], pa.string())}), tmp_path / "none.parquet")
    assert len(read_keys(tmp_path / "none.parquet", where="test")) == 0


@given(KEYS, st.integers(0, 30))
def test_a_slice_of_an_array_is_packed_like_a_copy_of_it(keys: list[bytes], start: int) -> None:
    ids = pa.array([key.hex() for key in keys], pa.string())
    assert pack(ids[start:], where="test").tolist() == [key.rstrip(b"\0") for key in keys[start:]]


def test_ids_of_the_pool_can_be_packed() -> None:
    identity = sample_id(conversation("A question", "An answer"))
    assert pack(pa.array([identity]), where="test").tobytes() == bytes.fromhex(identity)


@pytest.mark.parametrize("bad", ["", "0" * 31, "0" * 33, "0" * 31 + "g", "A" * 32, "é" * 16, None])
def test_what_is_no_id_is_named_with_its_place(bad: str | None) -> None:
    with pytest.raises(InputError, match="the list: entry 2 is") as caught:
        pack(pa.array(["0" * 32, bad], pa.string()), where="the list")
    assert repr(bad) in str(caught.value)


@given(KEYS, KEYS)
def test_positions_are_those_of_a_search_one_by_one(wanted: list[bytes], keys: list[bytes]) -> None:
    wanted += keys[::2]
    found = positions(np.array(wanted, "S16"), np.array(keys, "S16"))
    assert found.dtype == np.int64
    assert found.tolist() == [keys.index(key) if key in keys else -1 for key in wanted]


def test_positions_in_the_same_order_are_the_rows() -> None:
    keys = np.array([b"b" * 16, b"a" * 16], "S16")
    assert positions(keys, keys).tolist() == [0, 1]


def scrambled(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) % 2**64
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
    return value ^ value >> 31


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**63 - 1), st.text(max_size=5))
def test_tie_breaks_follow_their_definition(key: bytes, seed: int, salt: str) -> None:
    start = int.from_bytes(hashlib.blake2b(f"{seed}/{salt}".encode(), digest_size=8).digest(), "little")
    low, high = (int.from_bytes(half, "little") for half in (key[:8], key[8:]))
    assert tie_breaks(np.array([key], "S16"), seed, salt).tolist() == [scrambled(high ^ scrambled(low ^ start))]


def test_tie_breaks_are_spread_evenly_and_differ_by_seed_and_salt() -> None:
    keys = np.array([i.to_bytes(16, "big") for i in range(1, 20_001)], "S16")
    first, second, third = tie_breaks(keys, 1), tie_breaks(keys, 2), tie_breaks(keys, 1, "x")
    assert len(np.unique(first)) == 20_000
    counts = np.bincount((first >> np.uint64(60)).astype(int), minlength=16)
    assert np.abs(counts - 1250).max() < 5 * 1250**0.5
    for other in (second, third):
        assert abs(np.corrcoef(first.astype(float), other.astype(float))[0, 1]) < 0.03
