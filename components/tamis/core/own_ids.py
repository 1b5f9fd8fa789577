"""Finding samples by the user's own ids, which the pool keeps in its metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError
from tamis.core.tabular import key_of

_ROWS = 10_000  # samples of the pool whose metadata are in memory at once


def ids_by_field(pool: Artifact, field: str) -> tuple[list[str], list[str | None]]:
    """The pool's ids, and the value of a kept field of each sample, as text to match by; None where it has no value.

    Raises:
        InputError: when no sample has a value in the field, or two samples have the same value.
    """
    ids: list[str] = []
    wanted: list[str | None] = []
    fields: set[str] = set()
    for batch in pool.batches(["id", "metadata"], rows=_ROWS):
        ids += batch["id"].to_pylist()
        for text in batch["metadata"].to_pylist():
            kept = json.loads(text) if text else {}
            fields.update(kept)
            wanted.append(key_of(kept.get(field)))
    if all(key is None for key in wanted):
        raise InputError(
            f"no sample of the pool has the field '{field}' in its metadata",
            allowed=", ".join(sorted(fields)) or "none: the pool keeps no fields",
            action=f"add '{field}' to `keep` of the pool's source, or name another field",
        )
    refuse_repeats(wanted, lambda row: f"the pool's sample {ids[row]}", f"'{field}' must name one sample")
    return ids, wanted


def refuse_repeats(
    keys: Sequence[str | None], where: Callable[[int], str], rule: str, shown: Callable[[str], str] = str
) -> None:
    """Make sure that no two of `keys` are equal.

    Args:
        keys: the keys; None is skipped.
        where: describes the place of the key with a given index.
        rule: what is allowed.
        shown: formats a key for people.

    Raises:
        InputError: naming the first two equal keys.
    """
    seen: dict[str, int] = {}
    for row, key in enumerate(keys):
        if key is not None and seen.setdefault(key, row) != row:
            raise InputError(
                f"{where(row)} has the same key '{shown(key)}' as {where(seen[key])}",
                allowed=rule,
                action="keep one of the two, or name the column that distinguishes samples",
            )


def some(keys: Sequence[str | None], shown: Callable[[str], str] = str) -> str:
    """The first three keys, for errors."""
    given = list(dict.fromkeys(shown(key) for key in keys if key is not None))[:3]
    return ", ".join(f"'{key}'" for key in given) or "nothing"
