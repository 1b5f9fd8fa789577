"""Sample ids as keys of 16 bytes instead of 32 hexadecimal digits, so that millions fit in memory and sort fast."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tamis.core.errors import InputError

USUAL_NAMES = ("id", "key", "uid", "uuid", "sample_id", "prompt_id")  # of fields with the user's own ids
Keys: TypeAlias = NDArray[np.bytes_]  # dtype S16

_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
_VALUES = np.full(256, 255, np.uint8)
_VALUES[_DIGITS] = np.arange(16)


def pack(ids: pa.Array, *, where: str) -> Keys:
    """Keys of ids: (n,) S16.

    Args:
        ids: n strings of 32 hexadecimal digits, without nulls.
        where: where they come from, for errors.

    Raises:
        InputError: naming the first value that is not an id.
    """
    ids = ids.cast(pa.large_string())
    right_length = pc.fill_null(pc.equal(pc.binary_length(ids), 32), False).to_numpy(zero_copy_only=False)
    if not right_length.all():
        raise _no_id(ids, int(np.argmin(right_length)), where)
    if len(ids) == 0:
        return np.empty(0, "S16")
    _, offsets, data = ids.buffers()
    start = int(np.frombuffer(offsets, np.int64)[ids.offset])  # a slice shares the data of the array it comes from
    text = np.frombuffer(data, np.uint8)[start : start + 32 * len(ids)].reshape(-1, 32)
    values = _VALUES[text]
    valid = (values < 16).all(axis=1)
    if not valid.all():
        raise _no_id(ids, int(np.argmin(valid)), where)
    return np.ascontiguousarray(values[:, 0::2] << 4 | values[:, 1::2]).view("S16").ravel()


def read_keys(path: Path, *, where: str) -> Keys:
    """Keys of the column `id` of a Parquet file, in the file's order.

    Raises:
        InputError: naming the first value that is not an id.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        keys = [pack(batch["id"], where=where) for batch in file.iter_batches(columns=["id"])]
    return np.concatenate(keys) if keys else np.empty(0, "S16")


def _no_id(ids: pa.Array, row: int, where: str) -> InputError:
    return InputError(
        f"{where}: entry {row + 1} is {ids[row].as_py()!r}",
        allowed="the id of a sample, as in the pool's column `id`: 32 hexadecimal digits in lower case",
    )


def unpack(keys: Keys) -> pa.Array:
    """The ids, n strings of 32 hexadecimal digits, of (n,) S16 `keys`."""
    octets = np.ascontiguousarray(keys).view(np.uint8).reshape(-1, 16)
    digits = np.empty((len(keys), 32), np.uint8)
    digits[:, 0::2], digits[:, 1::2] = _DIGITS[octets >> 4], _DIGITS[octets & 15]
    return pa.array(digits.view("S32").ravel()).cast(pa.string())


def repeated(keys: Keys) -> NDArray[np.int64]:
    """Ascending rows of (n,) `keys` that repeat an earlier key. It takes 16 bytes of memory per key."""
    heads = np.ascontiguousarray(keys).view("<u8")[::2]
    order = np.argsort(heads, kind="stable")
    near = np.flatnonzero(heads[order[1:]] == heads[order[:-1]])
    suspects = np.unique(np.concatenate([order[near], order[near + 1]]))  # keys with an equal half
    first = np.unique(keys[suspects], return_index=True)[1]
    return np.delete(suspects, first)


def positions(wanted: Keys, keys: Keys) -> NDArray[np.int64]:
    """The index of each of (m,) `wanted` in (n,) distinct `keys`: (m,) int64, -1 where it is missing."""
    if np.array_equal(wanted, keys):  # artifacts of the same pool keep its order
        return np.arange(len(keys))
    places = pc.index_in(_binary(wanted), value_set=_binary(keys))
    return pc.fill_null(places, -1).to_numpy().astype(np.int64)  # type: ignore[no-any-return]


def _binary(keys: Keys) -> pa.Array:
    buffer = pa.py_buffer(np.ascontiguousarray(keys))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(keys), [None, buffer])


def tie_breaks(keys: Keys, seed: int, salt: str = "") -> NDArray[np.uint64]:
    """A pseudo-random number per sample, (n,) uint64, that depends only on its key, `seed` and `salt`.

    Samples with equal scores are ordered by these numbers, so the order of the pool's rows has no effect. The
    probability that two of 50 million samples have the same number is below 0.0001.
    """
    start = hashlib.blake2b(f"{seed}/{salt}".encode(), digest_size=8).digest()
    halves = np.ascontiguousarray(keys).view("<u8").reshape(-1, 2).astype(np.uint64, copy=False)
    return _mix(halves[:, 1] ^ _mix(halves[:, 0] ^ np.frombuffer(start, "<u8").astype(np.uint64)))


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The final mixing of SplitMix64 (Steele, Lea, Flood 2014): every input bit affects every output bit."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return mixed ^ mixed >> np.uint64(31)
