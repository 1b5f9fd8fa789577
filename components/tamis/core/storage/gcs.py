"""The client of Google Cloud Storage, configured by Google's application default credentials.

These are a service account's key in `GOOGLE_APPLICATION_CREDENTIALS`, the login of `gcloud auth application-default
login`, or the identity of a machine or pod on Google's cloud. `STORAGE_EMULATOR_HOST` names another server.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tamis.core.storage.connecting import address_of, check_address, client_options, retries

if TYPE_CHECKING:
    from obstore.store import GCSConfig, GCSStore

_ADDRESS = "https://storage.googleapis.com"


def store(bucket: str) -> GCSStore:
    """The client of a bucket."""
    from obstore.store import GCSStore

    config: GCSConfig = {}
    if emulator := os.environ.get("STORAGE_EMULATOR_HOST"):  # usually without "http://"; it accepts any token
        address = address_of("gs", emulator if "://" in emulator else f"http://{emulator.strip()}")
        config = {"base_url": address.geturl(), "bearer_token": "none"}
    check_address("gs", bucket, config.get("base_url", _ADDRESS))
    return GCSStore(bucket, config=config, client_options=client_options(), retry_config=retries())
