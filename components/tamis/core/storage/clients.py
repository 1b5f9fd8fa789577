"""Clients of object storage: one per bucket, created again when the environment changes."""

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

_VARIABLES = ("AWS_", "AZURE_", "GOOGLE_", "STORAGE_", "SSL_CERT_", "REQUESTS_CA_", "HTTP", "ALL_PROXY", "NO_PROXY")
_process: int | None = None  # id of the process that has used a client


def store_of(path: ObjectPath) -> ObjectStore:
    """The client of the bucket that `path` is in.

    Raises:
        StorageError: when the environment is not configured for it, or its server's name cannot be resolved.
    """
    variables = tuple(sorted(item for item in os.environ.items() if item[0].upper().startswith(_VARIABLES)))
    return _store(path.scheme, path.bucket, os.getpid(), variables, connecting.ATTEMPTS)


@lru_cache(maxsize=64)
def _store(scheme: str, bucket: str, process: int, variables: object, attempts: int) -> ObjectStore:
    """A client. `variables` and `attempts` are only part of the cache's key; the client reads them itself."""
    global _process
    if process != (_process := _process or process):
        raise StorageError(
            f"{scheme}://{bucket} cannot be reached: this process was forked from one that had used object storage",
            action="start worker processes with spawn or forkserver",
        )
    makers: dict[str, Callable[[str], ObjectStore]] = {"s3": s3.store, "az": azure.store, "gs": gcs.store}
    try:
        return makers[scheme](bucket)
    except (ValueError, OverflowError) as error:  # obstore raises these for wrong values in the environment
        problem = f"{scheme}://{bucket} cannot be reached: {error}"
        raise StorageError(problem, action=CURES[scheme], permanent=True) from error
