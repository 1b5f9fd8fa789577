"""The Hugging Face cache of a pod: what is in it is read; where it cannot be written, a cache of the pod's own is.

On Kubernetes `HF_HOME` is a volume that many pods share. It may be mounted read-only or belong to another user:
Kubeflow gives volumes no group (`fsGroup`). Models are then only read from it. Data sets, locks and the like go to the
pod's own cache, because tasks from local files write there too.
"""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path

from tamis.core.errors import ModelError

log = logging.getLogger(__name__)
OWN = "TAMIS_HUGGING_FACE_CACHE"  # environment variable: the own cache of this process and its children, if it has one
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
# Environment variables of the Hugging Face libraries, and the folders in HF_HOME that they default to.
_WRITTEN = {
    "HF_DATASETS_CACHE": "datasets",
    "HF_MODULES_CACHE": "modules",
    "HF_XET_CACHE": "xet",
    "HF_ASSETS_CACHE": "assets",
    "HF_EVALUATE_CACHE": "evaluate",
    "HF_METRICS_CACHE": "metrics",
}


def is_writable(folder: Path) -> bool:
    """Whether this process may write to `folder`, or create it."""
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    return os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK)


def hub_cache() -> Path:
    """The folder with models and data sets as the Hub has them."""
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(os.path.expanduser(os.path.expandvars(given))) if given else _home() / "hub"


def use_own_cache() -> None:
    """Let this process and its children write to a cache of their own what cannot be written to `HF_HOME`.

    Prepared data sets in `HF_HOME` stay usable. Call this before a library of Hugging Face is imported: they read their
    environment variables only then. Nothing happens where `HF_HOME` can be written.

    Raises:
        OSError: when no folder can be created for the own cache either.
    """
    if OWN in os.environ:
        return
    home = _home()
    redirected = {name: folder for name, folder in _WRITTEN.items() if name not in os.environ}
    redirected = {name: folder for name, folder in redirected.items() if not is_writable(home / folder)}
    if not redirected and is_writable(hub_cache()):
        return
    own = _own_folder()
    os.environ[OWN] = str(own)
    for name, folder in redirected.items():
        os.environ[name] = str(own / folder)
    if "HF_DATASETS_CACHE" in redirected:
        _mirror(home / "datasets", own / "datasets")
    log.info("user %d cannot write to %s; models are read from it, data sets are written to %s", os.getuid(), home, own)


@contextmanager
def with_datasets() -> Iterator[None]:
    """Within this context, data sets of the Hub are downloaded to the own cache if the shared one cannot be written."""
    if OWN not in os.environ or is_writable(shared := hub_cache()):
        yield
        return
    from huggingface_hub import constants

    own = Path(os.environ[OWN]) / "hub"
    for repository in shared.glob("datasets--*"):
        _mirror(repository, own / repository.name)
    before, constants.HF_HUB_CACHE = constants.HF_HUB_CACHE, str(own)
    try:
        yield
    finally:
        constants.HF_HUB_CACHE = before


def check_fetchable(model: str, revision: str | None = None) -> None:
    """Make sure that `model`, a folder or a name on the Hub, is in the cache or can be downloaded into it.

    Raises:
        ModelError: when it is not in the cache, and the cache cannot be written.
    """
    if os.path.isdir(model) or is_writable(cache := hub_cache()):
        return
    try:
        from huggingface_hub import try_to_load_from_cache

        found = (try_to_load_from_cache(model, name, revision=revision) for name in ("config.json", "tokenizer.json"))
        if any(isinstance(file, str) for file in found):
            return
    except (ImportError, ValueError):  # the client is not installed, or this is no name on the Hub: loading says so
        return
    raise unfetchable(f"{model}{f'@{revision}' if revision else ''}", cache)


def unfetchable(name: str, cache: Path) -> ModelError:
    """The error for a model that is not in `cache` and cannot be written there."""
    return ModelError(
        f"{name} is not in {cache}, and user {os.getuid()} cannot write there, so it cannot be downloaded",
        allowed="a model that is in the volume, or a volume that the user or its group may write to",
        action="fill the volume with an account that may (`tamis fetch`; the chart: modelCache.prefetch), or give the "
        "volume to group 10001, or do without it (kubeflow.compiled.model_cache: false)",
        permanent=True,
    )


def refused_by_hub(error: BaseException) -> bool:
    """Whether no further attempt can help against `error` of the Hub's client, or of a library that uses it.

    That is so if there is no such repository or revision, or no access to it; if the Hub must not be asked
    (`HF_HUB_OFFLINE`); and if the cache cannot be written.
    """
    from huggingface_hub.errors import (
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,  # of gated repositories too
        RevisionNotFoundError,
    )

    refusals = (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError, OfflineModeIsEnabled)
    return any(
        isinstance(seen, refusals) or (isinstance(seen, OSError) and seen.errno in _UNWRITABLE)
        for seen in _with_causes(error)
    )


def may_pass(error: BaseException) -> bool:
    """Whether `error` of a library that reads data sets may be gone at another attempt.

    That is so if the Hub or the network failed, or the disk. `datasets` raises its own errors for that, such as that
    there is no such data set; only their causes say more.
    """
    return not refused_by_hub(error) and any(map(_is_passing, _with_causes(error)))


def _is_passing(error: BaseException) -> bool:
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, HfHubHTTPError) and status is not None:
        return bool(status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR)
    if isinstance(error, LocalEntryNotFoundError):  # the Hub could not be asked
        return True
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError | EntryNotFoundError)


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that led to it."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _home() -> Path:
    given = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return Path(os.path.expanduser(os.path.expandvars(given)))


def _own_folder() -> Path:
    cache = Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"))
    if not cache.is_absolute() or not is_writable(own := cache / "tamis" / "huggingface"):
        return Path(tempfile.mkdtemp(prefix="tamis-huggingface-"))
    own.mkdir(parents=True, exist_ok=True)
    return own


def _mirror(source: Path, target: Path) -> None:
    """Make `target` a copy of the folder `source` whose files are links to the originals, so that more can be added.

    Locks are left out. Files that are in `target` stay.
    """
    for folder, _, names in os.walk(source):
        place = target / Path(folder).relative_to(source)
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            if not name.endswith(".lock"):
                with suppress(FileExistsError):
                    os.symlink(Path(folder) / name, place / name)
