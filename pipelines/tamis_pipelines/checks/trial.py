"""Rating a few samples as a trial."""

from __future__ import annotations

from collections.abc import Iterator

from tamis.core.errors import InputError
from tamis.pool.checking import first_samples
from tamis.rating.settings import AskedRater
from tamis.rating.trying import try_ratings
from tamis_pipelines.settings import RunSettings


def tried(settings: RunSettings, count: int) -> Iterator[str]:
    """Yield, as text, how each rater rates the pool's first `count` samples. This may cost money.

    Raises:
        InputError: when no source is a file on this machine.
        ModelError: when a rater cannot be used.
    """
    samples = first_samples(settings.pool, count)
    if not samples:
        raise InputError(
            "no source of the pool has samples in a file on this machine",
            action="add such a source, or rate a few samples with `tamis rate`",
        )
    for rater in settings.raters:
        if not isinstance(rater, AskedRater) or rater.backend.JOURNALED:
            yield f"rater '{rater.name}': not tried, because its backend is {rater.backend.kind}"
            continue
        for trial in try_ratings(rater, samples):
            yield f"rater '{rater.name}'\n{trial}"
