"""Checks by its texts that a file of ratings matched by rows rates the samples that it is matched to.

A file in another order, or with a missing row, would match without an error: every row has a sample. Such files often
have the data's texts next to the scores, and these texts reveal it.
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
_TURNS = 16  # turns of a conversation that are compared
# A column whose share of matching rows is at most the first is not text of the data; from the second on, it is.
_SEEMS_OTHER, _SEEMS_SAME = 0.05, 0.8
_SAME, _DIFFERS = 1, 2  # result of comparing a cell; 0: nothing to compare
_PACKED = struct.Struct("<IQIQ")


class Digest(NamedTuple):
    """Length and hash of a text in plain form and, if it ends with dots, of the part before the dots.

    Lengths are in characters. The last two are 0 if the text does not seem to be cut.
    """

    length: int
    whole: int
    cut_length: int
    cut: int

    def is_of(self, text: str, role: str) -> bool:
        """Whether this is the digest of a message with the plain text `text`, of its beginning if cut, or of a part.

        An instruction and its input become one user message: the instruction begins it, and the input ends it.
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
    """For each source of the pool, the fields that its conversations were made from; if unknown, all usual ones."""
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
    """The packed `Digest` of a text, or of each of the first turns of a conversation; empty for other values."""
    if isinstance(value, str) and value.lstrip().startswith("["):  # a list in a CSV cell
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

    A text that most rows share in a column identifies no sample and is not compared. If a column matches almost no
    sample, while another column with distinct texts matches most, it is not text of the data and is ignored.

    Args:
        file: the file, read with those columns of `texts` that it has.
        pool: the samples to compare with.
        rows: (n,) int64; the row in the file of each of the pool's n samples, or -1.
        texts: names of the columns with texts, by source.
        most: the largest share of the compared samples whose texts may differ.

    Returns:
        The number of samples compared, and the number of them whose texts differ.

    Raises:
        InputError: when more than `most` of them differ.
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
                    first[name] = f"row {row} in the column '{name}'; its sample begins with {begins!r}"
        start += len(batch)
    judged = _texts_of_the_data(file, rows, found)
    checked = int(np.any([found[name] > 0 for name in judged], axis=0).sum()) if judged else 0
    differ = int(np.any([found[name] == _DIFFERS for name in judged], axis=0).sum()) if judged else 0
    if differ > most * checked:
        raise InputError(
            f"{file.path}: {differ:,} of {checked:,} rows with texts differ from the samples in the same rows of the "
            f"pool's source: the file is in another order, or lacks rows; the first (rows start at 0): "
            f"{'; '.join(first[name] for name in judged if name in first)}",
            allowed=f"a share of at most {most:g} (backend.max_text_mismatch_share)",
            action="put the ratings in the order of the source, or match them by an id (by: metadata); if these "
            "columns are not texts of the data, set the limit to 1",
        )
    return checked, differ


def _most_common(values: Sequence[bytes]) -> bytes | None:
    """The value that makes up more than half of `values`, or None; also None for a single value."""
    candidate, lead = None, 0
    for value in values:  # Boyer and Moore's majority vote
        if lead == 0:
            candidate = value
        lead += 1 if value == candidate else -1
    return candidate if len(values) > 1 and 2 * values.count(candidate or b"") > len(values) else None


def _texts_of_the_data(file: RatingsFile, rows: NDArray[np.int64], found: dict[str, NDArray[np.uint8]]) -> list[str]:
    """The columns that hold texts of the data."""
    compared = {name: int((states > 0).sum()) for name, states in found.items()}
    share = {name: (states == _SAME).sum() / compared[name] for name, states in found.items() if compared[name]}

    def tells_apart(name: str) -> bool:
        texts = {file.texts(name, row) for row in rows[found[name] > 0].tolist()}
        return 2 * len(texts) > compared[name]

    if not any(part >= _SEEMS_SAME and tells_apart(name) for name, part in share.items()):
        return list(share)
    return [name for name, part in share.items() if part > _SEEMS_OTHER]


def plain(text: str) -> str:
    """A text without what programs often change: entities, character forms, quotes and white space."""
    if "&" in text:
        text = html.unescape(text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_changes())
    return " ".join(text.split())


@cache
def _changes() -> dict[int, str | None]:
    """Maps curly quotes to straight ones, and invisible format characters (category Cf) to nothing."""
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
