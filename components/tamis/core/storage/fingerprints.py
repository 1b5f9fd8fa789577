"""Fingerprints of the content of files and folders, for step keys and checks."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tamis.core.storage import objects
from tamis.core.storage.errors import explained
from tamis.core.storage.files import exists, files_below
from tamis.core.storage.places import below, known_fingerprints, locate, missing

_BLOCK = 1 << 20  # bytes


def sha256_of(path: Path) -> str:
    """SHA-256 of a local file's bytes, as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(uri: str | Path) -> str:
    """A fingerprint of a file's or folder's content, as 64 hex digits. Different content has another fingerprint.

    Equal local content has equal fingerprints. In object storage, entity tags are used and nothing is downloaded: S3
    computes them from the content, Azure and Google change them whenever an object is written. Hidden files in a
    folder do not count, because the hub's client keeps download times in some of them.

    Raises:
        StorageError: when there is nothing at `uri`.
    """
    known = known_fingerprints()
    if known is None:
        return _fingerprint(uri)
    if str(uri) not in known:
        known[str(uri)] = _fingerprint(uri)
    return known[str(uri)]


def _fingerprint(uri: str | Path) -> str:
    location = locate(uri)
    if isinstance(location, Path):
        if not exists(location):
            raise missing(uri)
        if location.is_file():
            return sha256_of(location)
        found = {below(location, file): file for file in files_below(location)}
        parts = [f"{name}:{sha256_of(file)}" for name, file in found.items() if _shown(name)]  # type: ignore[arg-type]
    else:
        with explained(f"looking for files in {location}"):
            tags = objects.tags(location)
        if not tags:
            raise missing(uri)
        parts = [f"{file}:{tags[file]}" for file in sorted(tags) if _shown(below(location, file))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _shown(name: str) -> bool:
    return not any(part.startswith(".") for part in name.split("/"))
