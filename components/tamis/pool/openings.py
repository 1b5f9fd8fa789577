"""Shared by all readers: names of formats, opening of files, encodings, and the reject for a line that is too long."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import logging
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, cast

from tamis.core.errors import InputError, explained_os_errors
from tamis.core.texts import encoding_by_its_start
from tamis.pool.rejects import Reject

Fields: TypeAlias = dict[str, Any]
Rows: TypeAlias = "Iterator[tuple[int, Fields | Reject]]"
Format = Literal["jsonl", "json", "csv", "tsv", "parquet", "arrow"]
MIB = 1 << 20
_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".ipc": "arrow",
    ".feather": "arrow",
}
_TEXTS = ("jsonl", "json", "csv", "tsv")
_COMPRESSED = (".gz", ".zst", ".xz", ".bz2")
FORMATS = f"{', '.join(_FORMATS)}; texts also with {', '.join(_COMPRESSED)}"
_DAMAGED = (EOFError, zlib.error, lzma.LZMAError)
_START = 1 << 20  # bytes from whose lines the encoding is guessed
_FEWEST_LINES, _LEAST_SHARE = 3, 0.9  # lines that are not UTF-8: number, and share of the lines that are not ASCII
_OTHERS = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "koi8_r"),
    *("gb18030", "big5", "shift_jis", "euc_jp", "euc_kr"),
)
UTF_8 = "utf-8"


def format_of(name: str) -> Format | None:
    """The format of a file by the ending of its name, in any case; None if it is not a known one."""
    plain, compression = _endings(name)
    found = _FORMATS.get(Path(plain).suffix)
    return None if compression and found not in _TEXTS else found


def _endings(name: str) -> tuple[str, str]:
    """The name in lower case without the ending of a compression, and that ending; it is empty if there is none."""
    lower = name.lower()
    ending = next((ending for ending in _COMPRESSED if lower.endswith(ending)), "")
    return lower.removesuffix(ending), ending


def opened(path: Path) -> IO[bytes]:
    """Open the file at `path`, decompressed if its name has the ending of a compression. The result has `peek`."""
    ending = _endings(path.name)[1]
    with explained_os_errors(f"reading {path}"):
        if ending == ".gz":
            return cast(IO[bytes], gzip.open(path, "rb"))
        if ending == ".bz2":
            return cast(IO[bytes], bz2.open(path, "rb"))
        if ending == ".xz":
            return cast(IO[bytes], lzma.open(path, "rb"))
        if ending == ".zst":
            import pyarrow as pa

            return cast(IO[bytes], io.BufferedReader(pa.input_stream(path, compression="zstd")))
        return path.open("rb")


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn the errors of decompressing a damaged file into `InputError`."""
    try:
        yield
    except (*_DAMAGED, OSError) as error:
        if getattr(error, "errno", None) is not None:  # from the system; errors about damaged content have no number
            raise
        raise InputError(f"{path} is damaged: {error}", action="download or create it again") from None


@dataclass(frozen=True)
class Guess:
    """What was found out about a text file: its encoding as Python names it, and whether this is only likely."""

    encoding: str
    likely: bool = False


@dataclass(frozen=True)
class Guessed:
    """What was guessed about a text file, if it is not UTF-8 with commas; None for what is as usual or was given."""

    encoding: Guess | None = None
    delimiter: str | None = None

    def __bool__(self) -> bool:
        return self != Guessed()

    @property
    def level(self) -> int:
        """The level to log it with: a likely encoding may change characters."""
        return logging.WARNING if self.encoding and self.encoding.likely else logging.INFO

    def __str__(self) -> str:
        parts = []
        if self.encoding:
            parts.append(f"encoding {self.encoding.encoding}{' (likely)' if self.encoding.likely else ''}")
        if self.delimiter:
            parts.append(f"delimiter {self.delimiter!r}")
        return ", ".join(parts)


def guessed_encoding(path: Path) -> Guess:
    """The encoding of a text file, from its first MiB.

    A byte order mark, or zero bytes, are certain. Otherwise the text is UTF-8, and rows that are not are broken, unless
    nearly all of its lines with other characters than ASCII are not UTF-8 and fit one of `_OTHERS`: then it is likely
    in that encoding.
    """
    with opened(path) as file, damage_named(path):
        start = file.read(_START)
    marked = encoding_by_its_start(start)
    if marked is not None:
        return Guess(marked)
    if _is_utf_8(start):
        return Guess(UTF_8)
    lines = [line for line in start.splitlines()[: -1 if len(start) == _START else None] if not line.isascii()]
    broken = [line for line in lines if not _is_utf_8(line)]
    if len(broken) < _FEWEST_LINES or len(broken) < _LEAST_SHARE * len(lines):
        return Guess(UTF_8)
    from charset_normalizer import from_bytes

    best = from_bytes(b"\n".join(broken), cp_isolation=list(_OTHERS)).best()
    return Guess(UTF_8) if best is None else Guess(codecs.lookup(best.encoding).name, likely=True)


def _is_utf_8(data: bytes) -> bool:
    decoder = codecs.getincrementaldecoder(UTF_8)()
    try:
        decoder.decode(data)  # an incomplete character at the end is no error
    except UnicodeDecodeError:
        return False
    return True


class _InUtf8(io.RawIOBase):
    """The bytes of a text in UTF-8. Bytes that are not text in its own encoding stay as they are."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text, self._left = text, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            self._left = self._text.read(MIB // 4).encode(UTF_8, "surrogateescape")
        piece = self._left[: len(buffer)]
        self._left = self._left[len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._text.close()
        super().close()


def opened_text(path: Path, encoding: str) -> IO[bytes]:
    """Open a text file as bytes in UTF-8, whatever its `encoding` is. The result has `peek`."""
    if encoding == UTF_8:
        return opened(path)
    text = io.TextIOWrapper(opened(path), encoding=encoding, errors="surrogateescape", newline="")
    return cast(IO[bytes], io.BufferedReader(_InUtf8(text)))


def too_long(limit: int) -> Reject:
    """The reject for a line of more than `limit` bytes or characters."""
    return Reject("row too long", f"the line is longer than {limit // MIB} MiB")
