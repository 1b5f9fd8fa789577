"""Compaction: merges the records of many small parts into one part, and removes the small ones.

One rule makes it safe: a part is removed only if all of its records are in durable, complete parts with greater names.
The name of a compacted part is greater than the names of all parts that it contains. A kill between two steps therefore
leaves duplicate records at worst, which readers recognize by the names of the original parts. Any number of processes
may compact at once, because none removes what another one relies on. A listing made at the same time, in the order of
names, contains the old part of a record or the new one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from tamis.core.errors import StorageError
from tamis.core.storage import Location, read_bytes, remove_all, sync_folder, write_bytes
from tamis.llm.store.columns import PART, parts_in, to_bytes
from tamis.llm.store.parts import is_compacted, is_part, moment_of, name_of_compacted, read_all
from tamis.llm.store.reading import AT_ONCE, Lines, compacted_tables, own_names
from tamis.llm.store.records import R, Records

log = logging.getLogger(__name__)
MANY = 1000  # number of parts from which a store is compacted
_SMALL = 100_000  # a compacted part with fewer records is merged into the next one
_BATCH = 1 << 26  # bytes of small parts that are merged at once; bounds the memory


def compact(records: Records[R], folder: Location, check: Callable[[], None]) -> None:
    """Compact a store's folder if it has many small parts. Damaged and unknown parts stay as they are.

    Args:
        records: the kind of records.
        folder: folder of the parts.
        check: raises an error if the folder has been replaced.

    Raises:
        StorageError: when the folder cannot be read or written; nothing is lost.
    """
    names = own_names(folder)
    small = [name for name in names if is_part(name) and not is_compacted(name)]
    if len(small) < MANY:
        return
    held: set[str] = set()
    taken: dict[str, pa.Table] = {}
    for name, table, _ in compacted_tables(records, folder, [name for name in names if is_compacted(name)]):
        if table is None:  # another process is compacting
            return
        if len(table) < _SMALL:
            taken[name] = _without(table, held)
        held |= parts_in(table)
    _remove(folder, [name for name in small if name in held], check)  # left by a process that was killed
    left = [name for name in small if name not in held]
    if len(left) < MANY:
        return
    made = 0
    while left:
        table, done, left = _next_batch(records, folder, left)
        if table is None:
            return
        if not done:
            continue
        _replace(folder, pa.concat_tables([*taken.values(), table]), [*taken, *done], check)
        taken, made = {}, made + 1
    log.info("%d small parts of the store were merged into %d: %s", len(small), made, folder)


def _next_batch(
    records: Records[R], folder: Location, names: Sequence[str]
) -> tuple[pa.Table | None, list[str], list[str]]:
    """The records of the first of these parts, the names of these parts, and the remaining names.

    The table is None if a part is gone, because another process is compacting.
    """
    lines, tables = Lines(records), list[pa.Table]()
    done: list[str] = []
    group: list[tuple[Location, bytes]] = []
    size = in_group = read = 0

    def close() -> None:
        table, faulty = lines.table_of(group)
        tables.append(_without(table, faulty))
        done.extend(location.name for location, _ in group if location.name not in faulty)

    for name, data in zip(names, read_all([folder / name for name in names], folder), strict=True):
        if data is None:
            return None, [], []
        read += 1
        if isinstance(data, StorageError):  # it stays; readers report it
            continue
        group.append((folder / name, data))
        size, in_group = size + len(data), in_group + len(data)
        if in_group >= AT_ONCE:
            close()
            group, in_group = [], 0
        if size >= _BATCH:
            break
    close()
    return pa.concat_tables(tables), done, list(names[read:])


def _without(table: pa.Table, names: set[str]) -> pa.Table:
    """The records whose original parts do not have these names."""
    if not names or not len(table):
        return table
    came_in = pc.is_in(table[PART.name].cast(pa.string()), pa.array(sorted(names), pa.string()))
    return table.filter(pc.invert(came_in))


def _replace(folder: Location, table: pa.Table, names: Sequence[str], check: Callable[[], None]) -> None:
    """Replace the parts `names` by one with all of their records, `table`."""
    data = to_bytes(table.unify_dictionaries(), [name for name in names if is_compacted(name)])
    name = name_of_compacted(data, max(map(moment_of, names)) + 1)
    check()
    write_bytes(folder / name, data)
    check()
    if read_bytes(folder / name) != data:
        raise StorageError(f"{folder / name} is not what was written", action="check the storage")
    _remove(folder, names, check)


def _remove(folder: Location, names: Sequence[str], check: Callable[[], None]) -> None:
    if not names:
        return
    if isinstance(folder, Path):
        sync_folder(folder)  # the process that wrote their records elsewhere may have been killed before this step
    check()
    remove_all(folder, names)
