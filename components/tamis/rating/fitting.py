"""Whether a file of ratings that is matched by rows is about the samples it is matched to: by the texts that it holds.

A file that is in another order, or lacks a row, matches without a word: every row has a sample. Such files often carry
the data's own texts beside the scores, and these show it.
"""

from __future__ import annotations

import html
import json
import re
import struct
import sys
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError
from tamis.core.samples import FIELDS, FIELDS_OF_A_MESSAGE

if TYPE_CHECKING:
    from tamis.rating.rating_files import RatingsFile

_ROWS = 2_000  # samples whose texts are in memory at once
_TURNS = 16  # of a conversation that are compared
_SEEMS_OTHER, _SEEMS_SAME = 0.05, 0.8  # shares of rows that match, of a column that is no text of the data, and of one
_SAME, _DIFFERS = 1, 2  # what a row's text in a column is; 0 where there is nothing to compare
_PACKED = struct.Struct("<IQIQ")


class Digest(NamedTuple):
    """What is kept of a text: its length and hash in plain form and, where it ends with dots, those of what is before.

    Lengths are in characters; the last two are 0 where the text does not seem to be cut.
    """

    length: int
    whole: int
    cut_length: int
    cut: int

    def is_of(self, text: str, role: str) -> bool:
        """Whether the text is a message with this plain text, its beginning where it is cut, or a part of a prompt.

        An instruction and its input become one message of the user: the one begins it, the other ends it.
        """
        length = self.length
        if len(text) == length:
            return _hash(text) == self.whole
        if self.cut_length and len(text) >= self.cut_length and _hash(text[: self.cut_length]) == self.cut:
            return True
        if role != "user" or len(text) < length:
            return False
        begins = text[length] == " " and _hash(text[:length]) == self.whole
        return begins or (text[-length - 1] == " " and _hash(text[-length:]) == self.whole)


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


def digests_of(value: Any) -> bytes:
    """The packed `Digest` of a text, or of each of the first turns of a conversation; nothing of other values."""
    if isinstance(value, str) and value.lstrip().startswith("["):  # as CSV holds a list
        with suppress(ValueError, RecursionError):
            turns = json.loads(value)
            if all(isinstance(turn, dict) and {"role", "from"} & turn.keys() for turn in turns):
                value = turns
    if isinstance(value, str):
        return _digest_of(value)
    if not isinstance(value, list):
        return b""
    contents = (
        next((turn[name] for name in ("content", "value") if name in turn), "") if isinstance(turn, dict) else turn
        for turn in value[:_TURNS]
    )
    return b"".join(_digest_of(text) for text in contents if isinstance(text, str))


def check_texts(
    file: RatingsFile, pool: Artifact, rows: NDArray[np.int64], texts: dict[str, list[str]], most: float
) -> tuple[int, int]:
    """Compare the texts of the file with those of the samples.

    A text that most rows have in its column tells nothing and is not compared. A column that fits hardly any sample,
    while another one that tells samples apart fits most, holds no text of the data and is left out.

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
    columns = list(dict.fromkeys(column for some in texts.values() for column in some if file.has_texts(column)))
    common = {
        column: _most_common([file.texts(column, row) for row in rows.tolist() if row >= 0]) for column in columns
    }
    found = {column: np.zeros(len(rows), np.uint8) for column in columns}
    first: dict[str, str] = {}
    start = 0
    for batch in pool.batches(["source", "messages"], rows=_ROWS) if columns else ():
        sources, messages = batch["source"].to_pylist(), batch["messages"]
        for place, row in enumerate(rows[start : start + len(batch)].tolist()):
            names = texts.get(sources[place], texts.get("", [])) if row >= 0 else []
            given = {
                name: digests for name in names if (digests := file.texts(name, row)) not in (b"", common.get(name))
            }
            if not given:
                continue
            said = [(plain(message["content"]), message["role"]) for message in messages[place].as_py()]
            for name, digests in given.items():
                parts = [Digest(*part) for part in _PACKED.iter_unpack(digests)]
                fits = all(any(part.is_of(text, role) for text, role in said) for part in parts)
                found[name][start + place] = _SAME if fits else _DIFFERS
                if not fits and name not in first:
                    begins = " / ".join(text[:40] for text, _ in said[:2])
                    first[name] = f"row {row} in the column '{name}', whose sample begins with {begins!r}"
        start += len(batch)
    judged = _texts_of_the_data(file, rows, found)
    checked = int(np.any([found[name] > 0 for name in judged], axis=0).sum()) if judged else 0
    differ = int(np.any([found[name] == _DIFFERS for name in judged], axis=0).sum()) if judged else 0
    if differ > most * checked:
        raise InputError(
            f"{file.path}: of {checked:,} rows with texts, {differ:,} have other ones than the samples at these rows "
            f"of the pool's source: its order is another, or it lacks rows; the first (rows count from 0): "
            f"{'; '.join(first[name] for name in judged if name in first)}",
            allowed=f"a share of {most:g} (backend.max_text_mismatch_share)",
            action="give the ratings in the source's order, or match them by an id (by: metadata); where these columns "
            "are not the data's own texts, set the limit to 1",
        )
    return checked, differ


def _most_common(values: Sequence[bytes]) -> bytes | None:
    """The value that more than half of `values` have, if there is one; None of a single value."""
    candidate, lead = None, 0
    for value in values:  # Boyer and Moore's majority vote
        if lead == 0:
            candidate = value
        lead += 1 if value == candidate else -1
    return candidate if len(values) > 1 and 2 * values.count(candidate or b"") > len(values) else None


def _texts_of_the_data(file: RatingsFile, rows: NDArray[np.int64], found: dict[str, NDArray[np.uint8]]) -> list[str]:
    """The columns that count."""
    compared = {name: int((states > 0).sum()) for name, states in found.items()}
    share = {name: (states == _SAME).sum() / compared[name] for name, states in found.items() if compared[name]}

    def tells_apart(name: str) -> bool:
        texts = {file.texts(name, row) for row in rows[found[name] > 0].tolist()}
        return 2 * len(texts) > compared[name]

    if not any(part >= _SEEMS_SAME and tells_apart(name) for name, part in share.items()):
        return list(share)
    return [name for name, part in share.items() if part > _SEEMS_OTHER]


def plain(text: str) -> str:
    """A text without what programs change on its way: entities, forms of a character, quotes and white space."""
    if "&" in text:
        text = html.unescape(text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_changes())
    return " ".join(text.split())


@cache
def _changes() -> dict[int, str | None]:
    """Curly quotes to straight ones; characters that have no form of their own (category Cf) to nothing."""
    changes: dict[int, str | None] = dict.fromkeys(
        code for code in range(128, sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cf"
    )
    return (
        changes
        | dict.fromkeys(map(ord, "\u2018\u2019\u201b"), "'")
        | dict.fromkeys(map(ord, "\u201c\u201d\u201f"), '"')
    )


def _digest_of(text: str) -> bytes:
    text = plain(text)
    if not text:
        return b""
    cut = re.sub(r" ?\.\.\.$", "", text)
    shorter = (len(cut), _hash(cut)) if cut and cut != text else (0, 0)
    return _PACKED.pack(len(text), _hash(text), *shorter)


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="backslashreplace"), digest_size=8).digest(), "little")
