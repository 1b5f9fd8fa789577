"""The parts of a store: names, content, and reading many of them."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from tamis.core.errors import StorageError
from tamis.core.storage import Location, exists, read_bytes

log = logging.getLogger(__name__)
_NAME = re.compile(r"(\d{20})-([0-9a-f]{16})\.(jsonl|parquet)")
_READERS, _READ_AHEAD = 16, 256  # threads that read parts, and parts in memory at a time
_AGAIN_AFTER = 1.0  # seconds between two tries to read
_READ_PATIENCE = 30.0  # seconds of retries to read a part


def is_part(name: str) -> bool:
    """Whether a file with this name is a part."""
    return _NAME.fullmatch(name) is not None


def is_compacted(name: str) -> bool:
    """Whether a file with this name is a compacted part."""
    match = _NAME.fullmatch(name)
    return match is not None and match[3] == "parquet"


def moment_of(name: str) -> int:
    """When a part with this name was written, in nanoseconds since 1970."""
    return int(name[:20])


def whole(name: str, data: bytes) -> bool:
    """Whether the content of a part matches the checksum in its name."""
    match = _NAME.fullmatch(name)
    return match is not None and _checksum(data) == match[2]


def part_of(records: Sequence[BaseModel], moment: int) -> tuple[str, bytes]:
    """The name and the content of a part written at `moment`, in nanoseconds since 1970."""
    data = b"".join(map(_line, records))
    return f"{moment:020d}-{_checksum(data)}.jsonl", data


def name_of_compacted(data: bytes, moment: int) -> str:
    """The name of a compacted part with this content."""
    return f"{moment:020d}-{_checksum(data)}.parquet"


def _line(record: BaseModel) -> bytes:
    try:
        return record.model_dump_json().encode() + b"\n"
    except PydanticSerializationError:  # half of a surrogate pair, which JSON allows but UTF-8 does not
        return json.dumps(record.model_dump(), ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def read_all(parts: Sequence[Location], folder: Location) -> Iterator[bytes | StorageError | None]:
    """The bytes of each part, in order, or the error if it cannot be read; many parts are read concurrently.

    None means that a part is gone: another process has compacted it, or somebody has removed it.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(parts), _READ_AHEAD):
            yield from pool.map(lambda part: _read_part(part, folder), parts[start : start + _READ_AHEAD])


def _read_part(location: Location, folder: Location) -> bytes | StorageError | None:
    """The bytes of one part. Parts never change, so every error is an error of the storage.

    Another process may have moved a part from a spare place to the store's `folder`.
    """
    give_up = time.monotonic() + _READ_PATIENCE
    while True:
        try:
            if isinstance(location, Path) and location.parent != folder and not location.exists():
                location = folder / location.name
            return read_bytes(location)
        except (StorageError, OSError) as error:
            with suppress(StorageError, OSError):
                if not exists(location):
                    return None
            problem = error if isinstance(error, StorageError) else StorageError(f"reading {location}: {error}")
            if time.monotonic() >= give_up:
                return problem
            log.warning("a part of the store cannot be read, trying again: %s", problem)
            time.sleep(_AGAIN_AFTER)


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
