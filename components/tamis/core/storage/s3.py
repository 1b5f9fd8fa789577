"""How S3 is reached: by the settings and identities of AWS' own clients, as botocore finds them.

It reads the environment (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL_S3`, `AWS_CA_BUNDLE`, `AWS_MAX_ATTEMPTS` …), profiles
in the files of `aws configure`, and gets credentials of single sign-on, web identities, pods, containers and machines.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tamis.core.storage.connecting import address_of, check_address, client_options, retries

if TYPE_CHECKING:
    from obstore.store import S3Credential, S3Store

FIRST_REGION = "us-east-1"
_ASK_AGAIN = timedelta(minutes=5)  # for credentials; botocore itself renews those that end


def store(bucket: str) -> S3Store:
    """The client of a bucket."""
    from botocore.configprovider import ConfiguredEndpointProvider
    from obstore.store import S3Store

    session = session_of()
    told = session.get_config_variable
    region = (told("region") or os.environ.get("AWS_REGION") or "").strip() or FIRST_REGION
    endpoint = ConfiguredEndpointProvider(session.full_config, session.get_scoped_config(), "s3").provide()
    virtual = (told("s3") or {}).get("addressing_style") == "virtual"
    address = address_of("s3", endpoint or f"https://s3.{region}.amazonaws.com")
    host = f"{bucket}.{address.netloc}" if virtual else address.netloc
    check_address("s3", f"{address.scheme}://{host}")
    return S3Store(
        bucket,
        # By this name, for the environment's own is then not looked at.
        aws_endpoint_url_s3=f"{address.scheme}://{host}{address.path.rstrip('/')}",
        region=region,
        virtual_hosted_style_request=virtual,
        credential_provider=_Credentials(session),
        client_options=client_options(told("ca_bundle")),
        retry_config=retries(int(told("max_attempts") or 0)),
    )


def session_of() -> Any:
    """What botocore knows of the user's settings and identity."""
    from botocore.session import Session

    return Session()


class _Credentials:
    """Credentials, each time they are asked for."""

    def __init__(self, session: Any) -> None:
        from botocore.exceptions import NoCredentialsError

        self._credentials = session.get_credentials()
        if self._credentials is None:
            raise NoCredentialsError
        self()  # a refusal is told here in botocore's words

    def __call__(self) -> S3Credential:
        frozen = self._credentials.get_frozen_credentials()
        return {
            # Files of secrets end in a line break, which no request can hold.
            "access_key_id": frozen.access_key.strip(),
            "secret_access_key": frozen.secret_key.strip(),
            "token": (frozen.token or "").strip() or None,
            "expires_at": datetime.now(UTC) + _ASK_AGAIN,
        }
