"""Checks the files that a run reads and that may ship with Tamis: prompts, suites, DeepSpeed configurations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tamis.core.errors import TamisError
from tamis_pipelines.checks.check import Check
from tamis_pipelines.checks.fields import fields_of
from tamis_pipelines.settings import RunSettings


def files(settings: RunSettings) -> Iterator[Check]:
    """Read every such file as the stage does."""
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
    """Return an error's text without the setting at its start, because the check names the setting."""
    setting, _, words = problem.partition(": ")
    return words if words and where.endswith(setting) else problem
