"""A test of object storage with the credentials that a process really has."""

from __future__ import annotations

import logging
import uuid

from tamis.core.errors import SettingsError, StorageError
from tamis.core.storage import exists, is_remote, locate, read_bytes, remove, write_bytes
from tamis.core.storage.errors import CURES

log = logging.getLogger(__name__)


def probe(uri: str, *, create_bucket: bool = False) -> None:
    """Write a small file below `uri`, read it back and remove it. With `create_bucket`, create the bucket first.

    Raises:
        StorageError: when storage refuses any of this, or returns other bytes than were written.
        SettingsError: when `create_bucket` is given for storage other than S3.
    """
    if create_bucket:
        _create_bucket(uri)
    place = locate(uri) / f".tamis-probe-{uuid.uuid4().hex}"
    exists(place)  # a missing bucket is an error here; some servers would create it when written to
    written = uuid.uuid4().bytes
    write_bytes(place, written)
    try:
        if read_bytes(place) != written:
            raise StorageError(f"{place} does not return what was written", action="check the storage server")
    finally:
        remove(place)
    if exists(place):
        raise StorageError(f"{place} still exists after it was removed", action="check the storage server")
    log.info("%s can be written, read and removed", uri)


def _create_bucket(uri: str) -> None:
    """Create the bucket of an s3:// `uri`, unless it exists."""
    if not is_remote(uri) or not uri.startswith("s3://"):
        raise SettingsError(f"{uri}: only S3 buckets can be created", allowed="s3://bucket/…")
    from botocore.exceptions import BotoCoreError, ClientError

    from tamis.core.storage.s3 import FIRST_REGION, session_of

    bucket = uri.removeprefix("s3://").split("/", 1)[0]
    client = session_of().create_client("s3")  # obstore creates no buckets
    region = client.meta.region_name
    # AWS requires the region here, except for its first region, which it refuses here.
    place = {} if region == FIRST_REGION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        client.create_bucket(Bucket=bucket, **place)
        log.info("created the bucket %s", bucket)
    except (client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
        log.info("the bucket %s exists", bucket)
    except (BotoCoreError, ClientError) as error:
        raise StorageError(
            f"creating the bucket {bucket}: {type(error).__name__}: {error}",
            action=CURES["s3"],
            permanent=isinstance(error, ClientError) and error.response["ResponseMetadata"]["HTTPStatusCode"] == 403,
        ) from error
