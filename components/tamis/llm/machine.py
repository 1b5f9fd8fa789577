"""What all runs of a user on one machine share: the store of answers, and locks so that equal runs take turns."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from tamis.core.errors import StorageError
from tamis.core.settings import hash_of
from tamis.core.steps import Uri

log = logging.getLogger(__name__)
STORE = "TAMIS_STORE"  # environment variable: the default folder for answers


def place_of_answers(kind: Literal["ratings", "judging"], given: str | None, address: str | None = None) -> Uri:
    """The folder of the store: the one in the settings, or else a folder for all runs.

    The latter is `$TAMIS_STORE/<kind>`, else `$TAMIS_HOME/<kind>` (in pods), else `tamis/<kind>` in the user's data
    folder (`$XDG_DATA_HOME`, or `~/.local/share`). It is not a cache folder, because answers cost money.

    Args:
        kind: kind of the answers.
        given: the store in the settings.
        address: address of the service in the settings. Local servers often serve different models under one name, so
            in the folder for all runs each address has its own folder.

    Raises:
        StorageError: when the user has no home folder.
    """
    if given is not None:
        return given
    folder = os.path.expanduser(os.environ.get(STORE, ""))
    if not folder and (home := os.environ.get("TAMIS_HOME")):
        return Path(home, kind)
    parts = (
        [kind] if address is None else [kind, hash_of(address)[:16]]
    )  # hashed, because an address may contain secrets
    return "/".join([folder, *parts]) if folder and "://" in folder else Path(folder or user_data(), *parts)


def store_of_run(home: Path) -> str | None:
    """The store of a whole run on this machine, unless its settings name one: the folder for all runs.

    None means the run's own folder `home`, if version 0.1 has left answers there that were paid for.

    Raises:
        StorageError: when the user has no home folder.
    """
    if given := os.environ.get(STORE):
        return os.path.expanduser(given)
    return None if any((home / kind).is_dir() for kind in ("ratings", "judging")) else str(user_data())


def user_data() -> Path:
    """The folder for this user's data on this machine.

    Raises:
        StorageError: when the user has no home folder.
    """
    if folder := os.environ.get("XDG_DATA_HOME"):
        return Path(folder).expanduser() / "tamis"
    try:
        return Path.home() / ".local" / "share" / "tamis"
    except RuntimeError:
        raise StorageError(
            "this user has no home folder to keep answers in",
            action=f"set {STORE} to a permanent folder, or set 'store'",
            permanent=True,
        ) from None


@contextmanager
def one_at_a_time(who: str, *what: Any) -> Iterator[None]:
    """Let equal runs on this machine take turns, so that later ones find the answers of the first in the store.

    The system releases the lock of a process that dies. Without a folder for locks, nothing is locked.

    Args:
        who: name for the log.
        what: JSON values that are equal for equal work.
    """
    with ExitStack() as stack:
        try:
            folder = user_data() / "locks"
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((folder / hash_of(list(what))[:32]).open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("%s: an equal run is in progress; waiting for it to end (%s)", who, file.name)
                fcntl.flock(file, fcntl.LOCK_EX)
        except (OSError, StorageError) as error:  # no home, or a file system without locks
            log.warning("%s: no lock is possible, so an equal run at the same time would pay twice: %s", who, error)
        yield
