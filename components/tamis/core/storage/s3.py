"""The client of S3, configured like AWS' own clients, through botocore.

botocore reads the environment (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL_S3`, `AWS_CA_BUNDLE`, `AWS_MAX_ATTEMPTS` …) and
the profiles of `aws configure`, and obtains credentials from single sign-on, web identities, pods, containers and
machines.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tamis.core.storage.connecting import address_of, check_address, client_options, retries

if TYPE_CHECKING:
    from obstore.store import S3Credential, S3Store

FIRST_REGION = "us-east-1"
_VALID = timedelta(minutes=5)  # before obstore requests credentials again; botocore renews those that expire


def store(bucket: str) -> S3Store:
    """The client of a bucket."""
    from botocore.configprovider import ConfiguredEndpointProvider
    from obstore.store import S3Store

    session = session_of()
    configured = session.get_config_variable
    region = (configured("region") or os.environ.get("AWS_REGION") or "").strip() or FIRST_REGION
    endpoint = ConfiguredEndpointProvider(session.full_config, session.get_scoped_config(), "s3").provide()
    virtual = (configured("s3") or {}).get("addressing_style") == "virtual"
    address = address_of("s3", endpoint or f"https://s3.{region}.amazonaws.com")
    host = f"{bucket}.{address.netloc}" if virtual else address.netloc
    check_address("s3", bucket, f"{address.scheme}://{host}")
    return S3Store(
        bucket,
        # Under this name, so that obstore ignores the variable in the environment.
        aws_endpoint_url_s3=f"{address.scheme}://{host}{address.path.rstrip('/')}",
        region=region,
        virtual_hosted_style_request=virtual,
        credential_provider=_Credentials(session),
        client_options=client_options(configured("ca_bundle")),
        retry_config=retries(int(configured("max_attempts") or 0)),
    )


def session_of() -> Any:
    """A session of botocore, which knows the user's configuration and identity."""
    from botocore.session import Session

    return Session()


class _Credentials:
    """Provides credentials whenever obstore requests them."""

    def __init__(self, session: Any) -> None:
        from botocore.exceptions import NoCredentialsError

        self._credentials = session.get_credentials()
        if self._credentials is None:
            raise NoCredentialsError
        self()  # raises botocore's error here if credentials are refused

    def __call__(self) -> S3Credential:
        frozen = self._credentials.get_frozen_credentials()
        return {
            # Files with secrets end in a line break, which is not allowed in requests.
            "access_key_id": frozen.access_key.strip(),
            "secret_access_key": frozen.secret_key.strip(),
            "token": (frozen.token or "").strip() or None,
            "expires_at": datetime.now(UTC) + _VALID,
        }
