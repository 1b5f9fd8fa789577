"""Whether a file of ratings that is matched by rows is about the samples it is matched to: by the texts that it holds.

A file that is in another order, or lacks a row, matches without a word: every row has a sample. Such files often carry
the data's own texts beside the scores, and these show it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError
from tamis.core.samples import FIELDS, FIELDS_OF_A_MESSAGE

if TYPE_CHECKING:
    from tamis.rating.rating_files import RatingsFile

_COMPARED = 100  # characters of each text: enough to tell samples apart, and few enough to be in memory
_TURNS = 4  # of a conversation
_ROWS = 2_000  # samples whose texts are in memory at once


def text_columns(pool: Artifact) -> dict[str, list[str]]:
    """By source of the pool, the fields that its conversations were made from; all usual ones where none is told."""
    facts = pool.manifest.facts.get("sources", {})
    renamed = {source.get("name"): source.get("fields") or {} for source in pool.manifest.config.get("sources", [])}
    found = {}
    for source in {*facts, *renamed} or {""}:
        schema = facts.get(source, {}).get("schema")
        names = FIELDS[schema] if schema in FIELDS else {name: None for names in FIELDS.values() for name in names}
        own = {name: name for name in names if name != "system"} | renamed.get(source, {})
        found[source] = [column for field, column in own.items() if field not in FIELDS_OF_A_MESSAGE]
    return found


def start_of(value: Any) -> tuple[str, ...]:
    """What is compared of a value: how its text begins, or each of the first turns of a conversation."""
    if isinstance(value, str) and value.lstrip().startswith("["):  # as CSV holds a list
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    if isinstance(value, str):
        return (_plain(value),) if value.strip() else ()
    if not isinstance(value, list):
        return ()
    texts: list[str] = []
    for turn in value[:_TURNS]:
        text = (
            next((turn[name] for name in ("content", "value") if name in turn), "") if isinstance(turn, dict) else turn
        )
        texts += start_of(text) if isinstance(text, str) else ()
    return tuple(texts)


def check_texts(
    file: RatingsFile, pool: Artifact, rows: NDArray[np.int64], texts: dict[str, list[str]], most: float
) -> tuple[int, int]:
    """Compare the texts of the file with those of the samples.

    Args:
        file: with the columns of `texts` that it has.
        pool: whose samples are compared, in order.
        rows: (n,) of the file, for each of the pool's n samples; -1 for none.
        texts: columns with texts, by source.
        most: share of the compared samples whose texts may differ.

    Returns:
        How many samples were compared, and how many of them have other texts than their row.

    Raises:
        InputError: when more than `most` of them have.
    """
    checked = differ = start = 0
    first = ""
    for batch in pool.batches(["source", "messages"], rows=_ROWS):
        sources, messages = batch["source"].to_pylist(), batch["messages"]
        for place, row in enumerate(rows[start : start + len(batch)].tolist()):
            columns = texts.get(sources[place], texts.get("", [])) if row >= 0 else []
            given = {column: part for column in columns if (part := file.texts(column, row))}
            if not given:
                continue
            checked += 1
            said = _whole([message["content"] for message in messages[place].as_py()])
            wrong = [column for column, parts in given.items() if any(part not in said for part in parts)]
            if wrong:
                differ += 1
                first = first or (
                    f"row {row} has {given[wrong[0]][0][:40]!r} in the column '{wrong[0]}', and its sample begins with "
                    f"{said[:40]!r}"
                )
        start += len(batch)
    if differ > most * checked:
        raise InputError(
            f"{file.path}: of {checked:,} rows with texts, {differ:,} have other ones than the samples at these rows "
            f"of the pool's source: its order is another, or it lacks rows; the first (rows count from 0): {first}",
            allowed=f"a share of {most:g} (backend.max_text_mismatch_share)",
            action="give the ratings in the source's order, or match them by an id (by: metadata); where these columns "
            "are not the data's own texts, set the limit to 1",
        )
    return checked, differ


def _plain(text: str) -> str:
    """How a text begins, with single spaces."""
    return " ".join(text[: 4 * _COMPARED].split())[:_COMPARED].rstrip()


def _whole(contents: Sequence[str]) -> str:
    return " ".join(" ".join(contents).split())
