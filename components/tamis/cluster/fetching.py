"""Filling the model cache before GPUs are asked for: from a Hugging Face hub, or from object storage."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tamis.core.errors import ModelError, StorageError, explained_os_errors
from tamis.core.settings import Settings
from tamis.core.storage import Location, below, download, files_below, is_remote, locate, size_of

log = logging.getLogger(__name__)


class HubSource(Settings):
    """A repository of the hub; it lands in the hub's own cache (`HF_HOME`), where every stage finds it by name."""

    kind: Literal["hub"] = "hub"
    repo: str = Field(min_length=1, description="the hub's name, as in BAAI/bge-large-en-v1.5")
    revision: str | None = Field(None, description="commit or tag; the newest if not given")
    type: Literal["model", "dataset"] = Field("model", description="what the repository holds")
    files: tuple[str, ...] = Field((), description="patterns of the files wanted, as in *.safetensors; all if none")


class StorageSource(Settings):
    """A model's folder in object storage; it is copied to `folder`, which settings then give as the model."""

    kind: Literal["storage"] = "storage"
    uri: str = Field(min_length=1, description="s3://bucket/prefix of a folder in Hugging Face layout")
    folder: Path = Field(description="absolute path of the copy")


class FetchSettings(Settings):
    """What belongs into the model cache."""

    models: list[Annotated[HubSource | StorageSource, Field(discriminator="kind")]] = Field(
        min_length=1, description="what to fetch, one after the other"
    )


def fetch(settings: FetchSettings) -> None:
    """Fetch everything that `settings` name; what is there already is not fetched again.

    Raises:
        ModelError: when a hub does not give a repository.
        StorageError: when a folder in object storage is empty or cannot be read, or the disk is full.
    """
    for source in settings.models:
        if isinstance(source, HubSource):
            _from_hub(source)
        else:
            _from_storage(source)


def _from_hub(source: HubSource) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name = f"{source.repo}@{source.revision or 'main'}"
    try:
        with explained_os_errors(f"fetching {name}"):
            folder = snapshot_download(
                source.repo,
                repo_type=source.type,
                revision=source.revision,
                allow_patterns=list(source.files) or None,
            )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(
            f"cannot fetch {name}: {first}",
            action="check the name, the network and HF_ENDPOINT; a gated repository needs HF_TOKEN",
        ) from error
    log.info("%s: in %s", name, folder)


def _from_storage(source: StorageSource) -> None:
    if not is_remote(source.uri):
        raise StorageError(f"{source.uri} is not in object storage", allowed="s3://…, az://… or gs://…")
    root = locate(source.uri)
    files = files_below(root)
    if not files:
        raise StorageError(f"no files below {source.uri}", action="check the prefix, or put the model there first")
    fetched = sum(_fetch_file(file, source.folder / below(root, file)) for file in files)
    log.info("%s: %d files in %s, %d of them fetched now", source.uri, len(files), source.folder, fetched)


def _fetch_file(file: Location, target: Path) -> bool:
    """Fetch one file unless it is there in its full size; returns whether it was fetched."""
    if target.is_file() and target.stat().st_size == size_of(file):
        return False
    download(file, target)
    return True
