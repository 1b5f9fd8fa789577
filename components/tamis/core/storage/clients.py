"""Clients of object storage: one for each bucket, made anew when the environment says something else."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from tamis.core.errors import StorageError
from tamis.core.storage import azure, connecting, gcs, s3
from tamis.core.storage.errors import CURES
from tamis.core.storage.places import ObjectPath

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_TOLD_BY = ("AWS_", "AZURE_", "GOOGLE_", "STORAGE_", "SSL_CERT_", "REQUESTS_CA_", "HTTP", "ALL_PROXY", "NO_PROXY")
_process: int | None = None  # that has used a client


def store_of(path: ObjectPath) -> ObjectStore:
    """The client of the bucket that `path` is in.

    Raises:
        StorageError: when the environment does not say how it is reached, or its server's name is not known.
    """
    told = tuple(sorted(item for item in os.environ.items() if item[0].upper().startswith(_TOLD_BY)))
    return _store(path.scheme, path.bucket, os.getpid(), told, connecting.ATTEMPTS)


@lru_cache(maxsize=64)
def _store(scheme: str, bucket: str, process: int, told: object, attempts: int) -> ObjectStore:
    """A client. `told` and `attempts` are what it depends on besides; it finds them itself."""
    global _process
    if process != (_process := _process or process):
        raise StorageError(
            f"{scheme}://{bucket} cannot be reached: this process was forked from one that had used object storage",
            action="start processes by spawn or forkserver",
        )
    makers: dict[str, Callable[[str], ObjectStore]] = {"s3": s3.store, "az": azure.store, "gs": gcs.store}
    try:
        return makers[scheme](bucket)
    except (ValueError, OverflowError) as error:  # how obstore refuses what the environment says
        raise StorageError(f"{scheme}://{bucket} cannot be reached: {error}", action=CURES[scheme]) from error
