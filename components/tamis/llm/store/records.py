"""Records read from a store: compact in memory, and found by id."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from tamis.core.ids import pack

log = logging.getLogger(__name__)
PASSING = ("failed", "too_long")  # temporary statuses: faults pass, and servers may get a longer context
R = TypeVar("R", bound=BaseModel)
ATTEMPTS = Field(ge=0, le=2**15 - 1)  # the range of the column
TOKENS = Field(None, ge=0, le=2**31 - 1)  # likewise; None: unknown


@dataclass(frozen=True)
class Records(Generic[R]):
    """A kind of record: models with a field `id` of 32 hexadecimal digits, and the Arrow schema of all their fields."""

    model: type[R]
    schema: pa.Schema
    called: str  # name for messages, such as "ratings"

    def none(self) -> Stored[R]:
        """An empty collection."""
        return Stored(self, self.schema.empty_table())


class Stored(Generic[R]):
    """Records read from a store, compact in memory.

    If an id has several records, a final one counts before any that needs another request, regardless of the clocks of
    the machines; of unparsable answers, the one after most attempts counts; otherwise, the latest one.
    """

    def __init__(self, records: Records[R], table: pa.Table, damaged: int = 0) -> None:
        self._records, self._model = records, records.model
        self.damaged = damaged  # parts that could not be read completely
        keys = pack(table["id"].combine_chunks(), where=f"the store of {records.called}")
        order = np.lexsort((*_worth(table), keys))  # a stable sort
        last = np.append(keys[order][1:] != keys[order][:-1], True)[: len(order)]
        self._rows = order[last]
        self._keys, self._table = keys[self._rows], table

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, ids: pa.Array) -> list[R | None]:
        """The records of `ids`, in order; None for ids without a record."""
        if not len(self):
            return [None] * len(ids)
        rows, found = self._rows_of(ids)
        records = map(self._model.model_validate, self._table.take(rows).to_pylist())
        return [next(records) if there else None for there in found.tolist()]

    def count(self, ids: pa.Array, columns: Sequence[str]) -> dict[tuple[Any, ...], int]:
        """The number of `ids` with a record, by the values of `columns`; faster than `find`."""
        if not len(self):
            return {}
        there = self._table.select(list(columns)).take(self._rows_of(ids)[0])
        groups = there.group_by(list(columns)).aggregate([([], "count_all")])
        return {tuple(row[name] for name in columns): row["count_all"] for row in groups.to_pylist()}

    def sums(self, ids: pa.Array, columns: Sequence[str]) -> dict[str, int]:
        """The sum of each of `columns` over the records of `ids`; unknown values count as 0."""
        if not len(self):
            return {}
        there = self._table.select(list(columns)).take(self._rows_of(ids)[0])
        return {name: pc.sum(there[name]).as_py() or 0 for name in columns}

    def anew(self, read: Callable[[R], R]) -> Stored[R]:
        """A copy in which `read` has read stored answers again that were not understood earlier (`raw`)."""
        there = self._table.take(self._rows)
        held = there.filter(pc.is_valid(there["raw"])).to_pylist()
        found = [(one, read(one)) for one in map(self._model.model_validate, held)]
        changed = [new.model_dump(include=set(there.schema.names)) for old, new in found if new is not old]
        if not changed:
            return self
        log.info("%d stored answers that could not be read earlier can be read now", len(changed))
        # Of equally good records, the last counts.
        table = pa.concat_tables([self._table, pa.Table.from_pylist(changed, schema=self._table.schema)])
        return Stored(self._records, table.combine_chunks(), self.damaged)

    def beside(self, older: Stored[R]) -> Stored[R]:
        """These records together with `older` ones."""
        table = pa.concat_tables([older._table, self._table], promote_options="default").combine_chunks()
        return Stored(self._records, table, self.damaged + older.damaged)

    def _rows_of(self, ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the table for `ids`, and a mask of the ids that have one."""
        wanted = pack(ids, where="what is asked")
        places = np.minimum(np.searchsorted(self._keys, wanted), len(self) - 1)
        found = self._keys[places] == wanted
        return self._rows[places[found]], found


def _worth(table: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sort keys for the records of one id, the better record last: (n,) attempts paid without a result, (n,) status."""
    status = table["status"].combine_chunks()
    unparsable = pc.equal(status, "unparsable").to_numpy(zero_copy_only=False)
    passing = pc.is_in(status, pa.array(PASSING)).to_numpy(zero_copy_only=False)
    ok = pc.equal(status, "ok").to_numpy(zero_copy_only=False)
    attempts = table["attempts"].combine_chunks().to_numpy(zero_copy_only=False)
    # A paid record counts all attempts before it, whether its answer was unreadable or not understood.
    paid = pc.is_valid(table["prompt_tokens"].combine_chunks()).to_numpy(zero_copy_only=False)
    in_vain = unparsable | (passing & paid)
    return np.where(in_vain, attempts, 0), np.select([passing & ~in_vain, in_vain, ok], [0, 1, 3], 2)
