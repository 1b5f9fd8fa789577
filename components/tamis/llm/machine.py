"""What the runs of a machine's user share: the store of answers, and whose turn it is to ask."""

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
STORE = "TAMIS_STORE"  # names a folder for the answers of all runs whose settings name none


def place_of_answers(kind: Literal["ratings", "judging"], given: str | None, address: str | None = None) -> Uri:
    """Where answers outlive the run that paid for them: what the settings say, else a folder for all runs.

    That is `$TAMIS_STORE/<kind>`, else `$TAMIS_HOME/<kind>` (pods), else `tamis/<kind>` in the user's data
    (`$XDG_DATA_HOME`, or `~/.local/share`): no cache, since answers cost money.

    Args:
        kind: of the answers.
        given: what the settings say.
        address: of the service that answers, where settings name one. Servers of a user's own often give all that they
            serve one name: in the folder for all runs, each address has a folder of its own.

    Raises:
        StorageError: when the user has no home.
    """
    if given is not None:
        return given
    folder = os.path.expanduser(os.environ.get(STORE, ""))
    if not folder and (home := os.environ.get("TAMIS_HOME")):
        return Path(home, kind)
    parts = [kind] if address is None else [kind, hash_of(address)[:16]]  # an address may hold what is secret
    return "/".join([folder, *parts]) if folder and "://" in folder else Path(folder or user_data(), *parts)


def store_of_run(home: Path) -> str | None:
    """Where a whole run on this machine keeps answers, unless its settings name a place: where all runs do.

    None: in the run's own folder `home`, as version 0.1 did. They were paid for: such a run stays with them.

    Raises:
        StorageError: when the user has no home.
    """
    if given := os.environ.get(STORE):
        return os.path.expanduser(given)
    return None if any((home / kind).is_dir() for kind in ("ratings", "judging")) else str(user_data())


def user_data() -> Path:
    """The folder of this user's data on this machine.

    Raises:
        StorageError: when the user has no home.
    """
    if folder := os.environ.get("XDG_DATA_HOME"):
        return Path(folder).expanduser() / "tamis"
    try:
        return Path.home() / ".local" / "share" / "tamis"
    except RuntimeError:
        raise StorageError(
            "this user has no home folder, where answers that are paid for would be kept",
            action=f"set {STORE} to a folder that lasts, or the setting 'store'",
        ) from None


@contextmanager
def one_at_a_time(who: str, *what: Any) -> Iterator[None]:
    """Let one process of this machine at a time ask about something; the others find it answered when it is their turn.

    The system ends the turn of a process that dies. Where this user has no folder for locks, nobody waits.

    Args:
        who: for the log.
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
                log.info("%s: another run asks the same; waiting for its answers (%s)", who, file.name)
                fcntl.flock(file, fcntl.LOCK_EX)
        except (OSError, StorageError) as error:  # no home, or a file system without locks
            log.warning("%s: an equal run at the same time would pay twice, nothing can be locked: %s", who, error)
        yield
