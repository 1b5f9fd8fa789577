"""A test, before a run is submitted, of the places in object storage that it will write to."""

from __future__ import annotations

from tamis.cluster.places import is_testable, obstacle
from tamis_pipelines.checks.fields import fields_of
from tamis_pipelines.settings import RunSettings


def check_places(settings: RunSettings, *, root: str = "", outcomes: str = "") -> list[str]:
    """Test `root`, `outcomes` and every place that the settings name for results, each once.

    Returns:
        For each bucket that cannot be tested from here: why, and the places in it. After the first such place, the
        others in the same bucket are not tried.

    Raises:
        StorageError: when storage refuses access to one of them, with the option or setting that names it.
    """
    named = {"--root": root, "--outcomes": outcomes}
    named |= {
        field.where: str(field.value)
        for field in fields_of(settings)
        if field.reference is not None and field.reference.to == "store" and field.value
    }
    places: dict[str, str] = {}
    for what, place in named.items():
        if is_testable(place):
            places.setdefault(place, what)
    untested: dict[str, list[str]] = {}
    problems: dict[str, str] = {}
    for place, what in places.items():
        bucket = "/".join(place.split("/")[:3])  # scheme://bucket
        if bucket not in problems and (problem := obstacle(place, what)):
            problems[bucket] = problem
        if bucket in problems:
            untested.setdefault(bucket, []).append(f"{what} ({place})")
    return [f"{problem}; not tested: {', '.join(untested[bucket])}" for bucket, problem in problems.items()]
