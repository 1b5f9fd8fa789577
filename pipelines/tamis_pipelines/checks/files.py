"""Files that ship with Tamis or are the user's own, which a run reads: prompts, suites, DeepSpeed configurations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tamis.core.errors import TamisError
from tamis_pipelines.checks.check import Check
from tamis_pipelines.checks.fields import fields_of
from tamis_pipelines.settings import RunSettings


def files(settings: RunSettings) -> Iterator[Check]:
    """Every such file, read as the stage reads it."""
    for field in fields_of(settings):
        if field.reference is None or field.reference.read is None or field.value is None:
            continue
        try:
            seen = field.reference.read(field.owner)
        except TamisError as error:
            yield replace(Check.refused(field.where, error), seen=_without_place(error.problem, field.where))
        else:
            if seen:
                yield Check.of(field.where, True, seen)


def _without_place(problem: str, where: str) -> str:
    """The words of an error that may begin with the setting, which the check names itself."""
    setting, _, words = problem.partition(": ")
    return words if words and where.endswith(setting) else problem
