"""A test, before anything is started, of the places in object storage that pods will write to."""

from __future__ import annotations

import logging

from tamis.cluster.probe import probe
from tamis.core.errors import MissingExtraError, StorageError
from tamis.core.storage import SCHEMES, is_remote
from tamis.core.storage.connecting import few_attempts

log = logging.getLogger(__name__)


def is_testable(place: str) -> bool:
    """Whether `place` is in object storage that Tamis can access; Kubeflow's own names, as in `minio://`, are not."""
    return is_remote(place) and place.partition("://")[0] in SCHEMES


def obstacle(place: str, what: str) -> str:
    """Test whether `place` can be written and read with the credentials of this process.

    Pods may have other credentials and another network. So only a refusal is an error; anything else that keeps this
    process from testing the place is returned, and the pods find out.

    Args:
        place: a prefix for which `is_testable` holds.
        what: the option or setting that names it, for the error.

    Returns:
        Why the place cannot be tested from here; empty if it was tested.

    Raises:
        StorageError: when storage refuses access.
    """
    try:
        with few_attempts():
            probe(place)
    except MissingExtraError as error:
        return error.problem
    except StorageError as error:
        if error.permanent:
            action = f"{error.action}; if the pods have other credentials than you, start with --force"
            raise StorageError(f"{what}: {error.problem}", action=action, permanent=True) from error
        return error.problem
    return ""


def is_examined(place: str, what: str) -> bool:
    """Test one place as `obstacle` does, with a warning if that is not possible. Returns whether it was tested.

    Raises:
        StorageError: when storage refuses access.
    """
    if not is_testable(place):
        return False
    if problem := obstacle(place, what):
        log.warning("%s: %s cannot be tested from here: %s", what, place, problem)
    return not problem
