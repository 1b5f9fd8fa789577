"""A test, before a run is submitted, of the places in object storage that it will write to."""

from __future__ import annotations

from tamis.cluster.places import is_examined
from tamis_pipelines.checks.fields import fields_of
from tamis_pipelines.settings import RunSettings


def check_places(settings: RunSettings, *, root: str = "", outcomes: str = "") -> None:
    """Test `root`, `outcomes` and every place that the settings name for results, each once.

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
        places.setdefault(place, what)
    for place, what in places.items():
        is_examined(place, what)
