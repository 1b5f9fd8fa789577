"""Shared by all readers: types of rows, opening of files, and the reject for a line that is too long."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

from tamis.core.errors import explained_os_errors
from tamis.pool.rejects import Reject

Fields: TypeAlias = dict[str, Any]
Rows: TypeAlias = "Iterator[tuple[int, Fields | Reject]]"
MIB = 1 << 20


def opened(path: Path) -> IO[bytes]:
    """Open the file at `path`, decompressed if its name ends in .gz. The result has `peek`."""
    with explained_os_errors(f"reading {path}"):
        if path.name.endswith(".gz"):
            return cast(IO[bytes], gzip.open(path, "rb"))
        return path.open("rb")


def too_long(limit: int) -> Reject:
    """The reject for a line of more than `limit` bytes or characters."""
    return Reject("row too long", f"the line is longer than {limit // MIB} MiB")
