"""Encodings of text files, checked at their first bytes, and texts of others for a terminal or a file."""

from __future__ import annotations

import codecs
import re

from tamis.core.errors import InputError

_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),  # before UTF-16's mark, which is its prefix
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_GZIP = b"\x1f\x8b"
_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # by which a text changes colours, or moves the cursor
# Control characters but tab and newline, those that reverse the direction of writing, and halves of surrogate pairs.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
START = 4  # number of first bytes that are checked


def check_encoding(start: bytes, shown: str) -> None:
    """Reject a text file in UTF-16 or UTF-32, or a compressed file, by its first `START` bytes.

    Other encodings can be noticed only in single rows.

    Raises:
        InputError: with the command that converts the file. `shown` is the file's name.
    """
    if start.startswith(_GZIP):
        raise InputError(f"{shown} is compressed with gzip", allowed="text in UTF-8", action="decompress it: gunzip")
    found = encoding_by_its_start(start)
    if found is not None:
        raise InputError(
            f"{shown} is in {found}, or is not text",
            allowed="UTF-8",
            action=f"convert it, for example: iconv -f {found} -t UTF-8 FILE > FILE.utf8",
        )


def encoding_by_its_start(start: bytes) -> str | None:
    """UTF-32 or UTF-16 if a text begins with their byte order mark, or has zero bytes as they do; None otherwise."""
    start = start[:START]
    found = next((name for mark, name in _MARKS if start.startswith(mark)), None)
    if found is None and b"\0" in start:
        found = "UTF-16LE" if start[1:2] == b"\0" else "UTF-16BE"  # without a byte order mark
    return found


def text_of(data: bytes, shown: str) -> str:
    """The text in `data`, without a byte order mark.

    Raises:
        InputError: when it is not UTF-8.
    """
    check_encoding(data, shown)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{shown} is not UTF-8: byte {error.start}",
            allowed="UTF-8",
            action="convert it, for example: iconv -f WINDOWS-1252 -t UTF-8 FILE > FILE.utf8",
        ) from None


def printable(text: str) -> str:
    """A text of somebody else, such as a pod's message, that leaves a terminal as it is: escapes for what would not."""
    plain = _SEQUENCE.sub("", text.replace("\r\n", "\n"))
    return _UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], plain)


def cut_to_bytes(text: str, most: int) -> str:
    """The beginning of a text that has at most `most` bytes in UTF-8. Halves of surrogate pairs become "?"."""
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")
