"""Encodings of text files, checked at their first bytes, before a wrong encoding looks like damaged rows."""

from __future__ import annotations

import codecs

from tamis.core.errors import InputError

_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),  # before UTF-16's mark, which is its prefix
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_GZIP = b"\x1f\x8b"
START = 4  # number of first bytes that are checked


def check_encoding(start: bytes, shown: str) -> None:
    """Reject a text file in UTF-16 or UTF-32, or a compressed file, by its first `START` bytes.

    Other encodings can be noticed only in single rows.

    Raises:
        InputError: with the command that converts the file. `shown` is the file's name.
    """
    start = start[:START]
    if start.startswith(_GZIP):
        raise InputError(f"{shown} is compressed with gzip", allowed="text in UTF-8", action="decompress it: gunzip")
    found = next((name for mark, name in _MARKS if start.startswith(mark)), None)
    if found is None and b"\0" in start:
        found = "UTF-16LE" if start[1:2] == b"\0" else "UTF-16BE"  # without a byte order mark
    if found is not None:
        raise InputError(
            f"{shown} is in {found}, or is not text",
            allowed="UTF-8",
            action=f"convert it, for example: iconv -f {found} -t UTF-8 FILE > FILE.utf8",
        )


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
