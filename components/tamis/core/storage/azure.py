"""The client of Azure Blob Storage, configured by the environment variables of Azure's own tools.

These are a connection string (`AZURE_STORAGE_CONNECTION_STRING`), or an account (`AZURE_STORAGE_ACCOUNT_NAME`) with a
key, a shared access signature, a client secret, the workload identity of a pod (`AZURE_FEDERATED_TOKEN_FILE`,
`AZURE_CLIENT_ID`, `AZURE_TENANT_ID`), the managed identity of a machine, or the login of the program `az`
(`AZURE_USE_AZURE_CLI=true`).

obstore reads all of them itself, except the connection string and the variables of the program `az`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from tamis.core import secrets
from tamis.core.errors import StorageError
from tamis.core.storage.connecting import address_of, check_address, client_options, retries
from tamis.core.storage.errors import ACTIONS

if TYPE_CHECKING:
    from obstore.store import AzureConfig, AzureStore

_CONNECTION = "AZURE_STORAGE_CONNECTION_STRING"
# Variables that `az` and other tools read, with obstore's names for them.
_ALSO = {"AZURE_STORAGE_ACCOUNT": "account_name", "AZURE_STORAGE_KEY": "account_key"}
# Variables that obstore reads itself, and whose values may end in a line break if they come from a file.
_STRIPPED = {
    "AZURE_STORAGE_ACCOUNT_NAME": "account_name",
    "AZURE_STORAGE_ACCOUNT_KEY": "account_key",
    "AZURE_STORAGE_ACCESS_KEY": "account_key",
    "AZURE_STORAGE_SAS_TOKEN": "sas_key",
    "AZURE_STORAGE_SAS_KEY": "sas_key",
    "AZURE_STORAGE_TOKEN": "token",
    "AZURE_STORAGE_ENDPOINT": "endpoint",
    "AZURE_ENDPOINT": "endpoint",
    "AZURE_CLIENT_ID": "client_id",
    "AZURE_CLIENT_SECRET": "client_secret",
    "AZURE_TENANT_ID": "tenant_id",
}
_SIGNATURES = ("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY")


def store(container: str) -> AzureStore:
    """The client of a container."""
    from obstore.store import AzureStore

    given = {name: value.strip() for name, value in os.environ.items()}
    stripped = {known: given[name] for name, known in _STRIPPED.items() if given.get(name) != os.environ.get(name)}
    also = {known: given[name] for name, known in _ALSO.items() if given.get(name)}
    config: AzureConfig = stripped | also  # type: ignore[assignment]
    for name in _SIGNATURES:
        _know(given.get(name, ""))
    if connection := os.environ.get(_CONNECTION):
        config |= of_connection(connection)
    account = config.get("account_name") or given.get("AZURE_STORAGE_ACCOUNT_NAME")
    endpoint = config.get("endpoint") or given.get("AZURE_STORAGE_ENDPOINT") or given.get("AZURE_ENDPOINT")
    if endpoint:
        address_of("az", endpoint)
    made = AzureStore(container, config=config, client_options=client_options(), retry_config=retries())
    if endpoint or account:
        check_address("az", container, endpoint or f"https://{account}.blob.core.windows.net")
    return made


def _know(signature: str) -> None:
    """Register a shared access signature as a secret, and also the secret part in it."""
    secrets.know(signature, *parse_qs(signature).get("sig", []))


def of_connection(text: str) -> AzureConfig:
    """The configuration in a connection string.

    Raises:
        StorageError: when it has neither an account nor an endpoint.
    """
    said = dict(part.strip().partition("=")[::2] for part in text.split(";") if part.strip())
    key, signature = said.get("AccountKey", ""), said.get("SharedAccessSignature", "").removeprefix("?")
    secrets.know(text, key)
    _know(signature)
    if said.get("UseDevelopmentStorage", "").lower() == "true":
        return {"use_emulator": True}
    account, endpoint = said.get("AccountName", ""), said.get("BlobEndpoint", "")
    if account and not endpoint:
        suffix = said.get("EndpointSuffix", "core.windows.net")
        endpoint = f"{said.get('DefaultEndpointsProtocol', 'https')}://{account}.blob.{suffix}"
    account = account or (urlsplit(endpoint).hostname or "").partition(".")[0]
    if not account:
        raise StorageError(
            f"{_CONNECTION} has neither AccountName nor BlobEndpoint",
            allowed="a connection string as Azure's portal shows it",
            action=ACTIONS["az"],
            permanent=True,
        )
    found: AzureConfig = {"account_name": account, "endpoint": endpoint.rstrip("/")}
    found |= {"account_key": key} if key else {}
    found |= {"sas_key": signature} if signature else {}
    return found
