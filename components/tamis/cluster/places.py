"""A test, before anything is started, of the places in object storage that pods will write to."""

from __future__ import annotations

import logging

from tamis.cluster.probe import probe
from tamis.core.errors import MissingExtraError, StorageError
from tamis.core.storage import SCHEMES, is_remote
from tamis.core.storage.connecting import few_attempts

log = logging.getLogger(__name__)


def is_examined(place: str, what: str) -> bool:
    """Test whether `place` can be written and read with the credentials of this process.

    Pods may have other credentials and another network. So only a refusal is an error; anything else that keeps this
    process from looking is logged, and the pods find out.

    Args:
        place: a prefix in object storage; other places are not examined.
        what: the option or setting that names it, for the messages.

    Returns:
        Whether the place was examined.

    Raises:
        StorageError: when storage refuses access, or has no such bucket.
    """
    if not is_remote(place) or place.partition("://")[0] not in SCHEMES:
        return False
    try:
        with few_attempts():
            probe(place)
    except MissingExtraError as error:
        log.warning("%s: %s cannot be examined from here: %s", what, place, error.problem)
        return False
    except StorageError as error:
        if error.permanent:
            action = f"{error.action}; if the pods have other credentials than you, start with --force"
            raise StorageError(f"{what}: {error.problem}", action=action, permanent=True) from error
        log.warning("%s: %s cannot be examined from here: %s", what, place, error.problem)
        return False
    return True
