"""JSON from elsewhere, and the rows of a JSON file in memory: an array, or one value per line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

from tamis.core.errors import InputError
from tamis.core.texts import text_of


def json_of(text: str | bytes) -> Any:
    """The value of a JSON text from a user, a service or a model.

    Raises:
        ValueError: when it is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it nests deeper than can be read") from None  # the pool's rejects hold this text


def json_rows(data: bytes, shown: str) -> Iterator[tuple[str, Any]]:
    """The values of a file, each with its place, as in "answers.json, row 0". Blank lines are skipped.

    Args:
        data: the file's bytes, gzipped or not, with or without a byte order mark.
        shown: the file's name in errors.

    Raises:
        InputError: when it is not UTF-8, damaged, or not JSON.
    """
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{shown} is damaged: {error}", action="download or create it again") from None
    text = text_of(data, shown)
    if text.lstrip()[:1] == "[":
        for number, value in enumerate(_parsed(text, shown)):
            yield f"{shown}, row {number}", value
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"{shown}, line {number}"
            yield place, _parsed(line, place)


def _parsed(text: str, place: str) -> Any:
    try:
        return json_of(text)
    except ValueError as error:
        raise InputError(
            f"{place}: not JSON: {error}",
            allowed="an array of objects, or one object per line",
            action="correct the file",
        ) from None
