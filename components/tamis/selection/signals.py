"""Signals of the samples: as conditions that a sample must meet, and as columns that strategies use."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.conditions import conditions
from tamis.core.errors import InputError
from tamis.core.ids import Keys, pack, positions
from tamis.selection.candidates import Column

log = logging.getLogger(__name__)
_ROWS = 100_000
COLUMNS: Mapping[Column, str] = {"tokens": "tokens"}  # columns that strategies use, and the signals' names for them
UNMET = "conditions not met"  # reasons why samples are not eligible
ABSENT = "not in the signals"


def barred_by(where: Mapping[str, Any], signals: Artifact, ids: Keys) -> dict[str, NDArray[np.bool_]]:
    """Masks (n,) of the samples `ids` (n,) that must not be picked, by reason.

    A sample is barred if it does not meet all conditions of `where`. A null meets only conditions with `not`.

    Raises:
        InputError: when the signals lack a column that `where` names, or all of the samples.
        SettingsError: when a condition is wrong.
    """
    fits, keys = conditions(where), list[Keys]()
    _check_columns(signals, list(where), "where")
    met: list[NDArray[np.bool_]] = []
    for batch in signals.batches(["id", *where], rows=_ROWS):
        keys.append(pack(batch["id"], where=str(signals.location)))
        each = [_met(batch[name], is_met) for name, is_met in fits.items()]
        met.append(np.logical_and.reduce(each))
    at, absent = _places(signals, keys, ids)
    return {ABSENT: absent, UNMET: ~np.concatenate(met)[at] & ~absent}


def column_of(column: Column, signals: Artifact, ids: Keys) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """A column of whole numbers for strategies, -1 where it is not known; and a mask of samples that are absent.

    Raises:
        InputError: when the signals lack the column, or all of the samples `ids` (n,).
    """
    name, keys, values = COLUMNS[column], list[Keys](), list[NDArray[np.int64]]()
    _check_columns(signals, [name], "the strategy")
    for batch in signals.batches(["id", name], rows=_ROWS):
        keys.append(pack(batch["id"], where=str(signals.location)))
        values.append(batch[name].cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False))
    at, absent = _places(signals, keys, ids)
    return np.where(absent, -1, np.concatenate(values)[at]), absent


def _met(values: pa.Array, is_met: Any) -> NDArray[np.bool_]:
    """Whether each value meets a condition; equal values are looked at once."""
    found = values.dictionary_encode()
    of_each = np.array([is_met(value) for value in found.dictionary.to_pylist()] + [is_met(None)], bool)
    codes = found.indices.fill_null(len(of_each) - 1).to_numpy(zero_copy_only=False)
    met: NDArray[np.bool_] = of_each[codes]
    return met


def _check_columns(signals: Artifact, names: Sequence[str], what: str) -> None:
    known = signals.manifest.facts["columns"]
    if missing := [name for name in names if name not in known]:
        raise InputError(
            f"{what} needs the signal '{missing[0]}', which {signals.location} does not have",
            allowed=", ".join(known),
            action="correct the name, or run `tamis describe` with this signal",
        )


def _places(signals: Artifact, keys: list[Keys], ids: Keys) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The rows of the signals for the samples `ids` (n,), and a mask of samples that they lack."""
    at = positions(ids, np.concatenate(keys)) if keys else np.full(len(ids), -1)
    absent = at < 0
    if absent.all():
        raise InputError(
            f"{signals.location} has none of the pool's samples", action="use the signals of this pool (tamis describe)"
        )
    if absent.any():
        log.warning("%d of %d samples are not in the signals and are not picked", absent.sum(), len(ids))
    return at, absent
