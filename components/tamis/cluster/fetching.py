"""Filling the model cache before GPUs are requested: from the Hugging Face Hub, or from object storage."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tamis.core.errors import ModelError, StorageError, explained_os_errors
from tamis.core.hub_access import hub_cache, is_writable, refused_by_hub, unfetchable
from tamis.core.settings import Settings
from tamis.core.storage import Location, below, download, files_below, is_remote, locate, size_of

log = logging.getLogger(__name__)


class HubSource(Settings):
    """A repository of the Hub. It is put into the Hub's cache (`HF_HOME`), where every stage finds it by name."""

    kind: Literal["hub"] = "hub"
    repo: str = Field(min_length=1, description="name on the Hub, as in BAAI/bge-large-en-v1.5")
    revision: str | None = Field(None, description="commit, branch or tag; null: main")
    type: Literal["model", "dataset"] = Field("model", description="what the repository contains")
    files: tuple[str, ...] = Field((), description="patterns of the files to download, as in *.safetensors; empty: all")


class StorageSource(Settings):
    """A model's folder in object storage. It is copied to `folder`, which settings then name as the model."""

    kind: Literal["storage"] = "storage"
    uri: str = Field(min_length=1, description="a folder in Hugging Face layout, as in s3://bucket/prefix")
    folder: Path = Field(description="absolute path of the copy")


class FetchSettings(Settings):
    """What to put into the model cache."""

    models: list[Annotated[HubSource | StorageSource, Field(discriminator="kind")]] = Field(
        min_length=1, description="models and data sets, downloaded one after the other"
    )


def fetch(settings: FetchSettings) -> None:
    """Download everything that `settings` name, except for what is in the cache already.

    Raises:
        ModelError: when the Hub refuses a repository, or one that is not in the cache cannot be written there.
        StorageError: when a folder in object storage is empty or cannot be read, or the target cannot be written.
    """
    for source in settings.models:
        if isinstance(source, HubSource):
            _from_hub(source)
        else:
            _from_storage(source)


def _from_hub(source: HubSource) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, cache = f"{source.repo}@{source.revision or 'main'}", hub_cache()
    only_local = not is_writable(cache)
    try:
        with explained_os_errors(f"downloading {name}"):
            folder = snapshot_download(
                source.repo,
                repo_type=source.type,
                revision=source.revision,
                allow_patterns=list(source.files) or None,
                local_files_only=only_local,
            )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        if only_local:
            raise unfetchable(name, cache) from error
        first = str(error).strip().splitlines()[0]
        raise ModelError(
            f"cannot download {name}: {first}",
            action="check the name, the network and HF_ENDPOINT; a gated repository needs HF_TOKEN",
            permanent=refused_by_hub(error),
        ) from error
    log.info("%s: in %s%s", name, folder, ", which cannot be written and is not updated" if only_local else "")


def _from_storage(source: StorageSource) -> None:
    if not is_remote(source.uri):
        problem = f"{source.uri} is not in object storage"
        raise StorageError(problem, allowed="s3://…, az://… or gs://…", permanent=True)
    root = locate(source.uri)
    files = files_below(root)
    if not files:
        problem = f"there are no files in {source.uri}"
        raise StorageError(problem, action="check the prefix, or put the model there first", permanent=True)
    fetched = sum(_fetch_file(file, source.folder / below(root, file)) for file in files)
    log.info("%s: %d files in %s, %d of them downloaded now", source.uri, len(files), source.folder, fetched)


def _fetch_file(file: Location, target: Path) -> bool:
    """Download one file unless it is there with its full size; returns whether it was downloaded."""
    if target.is_file() and target.stat().st_size == size_of(file):
        return False
    if not is_writable(target.parent):
        raise unfetchable(str(file), target.parent)
    download(file, target)
    return True
