"""The plain values of a run's settings, each with its dotted place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import get_args

from pydantic import BaseModel

from tamis_pipelines.pods import ScoreName
from tamis_pipelines.settings import RunSettings


def fields_of(settings: RunSettings) -> Iterator[tuple[str, object]]:
    """Every plain value that a run of `settings` uses, with its dotted place."""
    unused = {*get_args(ScoreName)} - {*settings.scores}
    overruled = {"evaluation.model"}  # the base models that are evaluated are those that are trained
    if settings.experiment is not None and settings.experiment.models:
        overruled.add("finetuning.model")
    for section in type(settings).model_fields:
        if section not in unused:
            values = _plain_values(getattr(settings, section), section)
            yield from (field for field in values if field[0] not in overruled)


def _plain_values(value: object, where: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _plain_values(getattr(value, name), f"{where}.{name}")
    elif isinstance(value, Mapping) and any(isinstance(inner, BaseModel) for inner in value.values()):
        for name, inner in value.items():
            yield from _plain_values(inner, f"{where}.{name}")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _plain_values(item, f"{where}.{getattr(item, 'name', number)}")
    else:
        yield where, value


def last(where: str) -> str:
    """The last name of a dotted place."""
    return where.rsplit(".", 1)[-1]
