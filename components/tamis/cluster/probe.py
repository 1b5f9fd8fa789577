"""A try of the object storage with the credentials that a pod really has."""

from __future__ import annotations

import logging
import uuid

from tamis.core.errors import SettingsError, StorageError
from tamis.core.storage import exists, is_remote, locate, read_bytes, remove, write_bytes
from tamis.core.storage.errors import CURES

log = logging.getLogger(__name__)


def probe(uri: str, *, create_bucket: bool = False) -> None:
    """Write a small file below `uri`, read it back and remove it; first make the bucket, if `create_bucket`.

    Raises:
        StorageError: when storage refuses any of it, or gives back something else.
        SettingsError: when `create_bucket` is asked for storage other than S3.
    """
    if create_bucket:
        _create_bucket(uri)
    place = locate(uri) / f".tamis-probe-{uuid.uuid4().hex}"
    exists(place)  # a bucket that is not there is told here: some servers make it when they are written to
    written = uuid.uuid4().bytes
    write_bytes(place, written)
    try:
        if read_bytes(place) != written:
            raise StorageError(f"{place} does not give back what was written", action="check the storage server")
    finally:
        remove(place)
    if exists(place):
        raise StorageError(f"{place} was removed and is still there", action="check the storage server")
    log.info("%s can be written, read and removed", uri)


def _create_bucket(uri: str) -> None:
    """Make the bucket of an s3:// `uri`, unless it is there."""
    if not is_remote(uri) or not uri.startswith("s3://"):
        raise SettingsError(f"{uri}: only buckets of S3 can be made", allowed="s3://bucket/…")
    from botocore.exceptions import BotoCoreError, ClientError

    from tamis.core.storage.s3 import FIRST_REGION, session_of

    bucket = uri.removeprefix("s3://").split("/", 1)[0]
    client = session_of().create_client("s3")  # the client of files makes no buckets
    region = client.meta.region_name
    # AWS wants to hear the region once more, unless it is the first one, which it wants not to hear.
    place = {} if region == FIRST_REGION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        client.create_bucket(Bucket=bucket, **place)
        log.info("made the bucket %s", bucket)
    except (client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
        log.info("the bucket %s is there", bucket)
    except (BotoCoreError, ClientError) as error:
        raise StorageError(
            f"making the bucket {bucket}: {type(error).__name__}: {error}",
            action=CURES["s3"],
        ) from error
