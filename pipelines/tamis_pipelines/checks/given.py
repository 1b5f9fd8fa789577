"""Checks small files that a run reads late: prompts and answers of matches, tasks of influence, lists of ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tamis.core.errors import TamisError
from tamis.core.idfiles import read_ids
from tamis.core.jsonrows import json_rows
from tamis.core.storage import is_remote, locate, read_bytes
from tamis.influence.tasks import example_of, fields_beside
from tamis.judging.questions import given_answers, questions_of
from tamis.judging.settings import AnswersContestant, PromptSet
from tamis.rating.settings import AskedRater
from tamis_pipelines.checks.check import Check, no_file
from tamis_pipelines.pool_size import LARGE
from tamis_pipelines.settings import RunSettings


def given(settings: RunSettings) -> Iterator[Check]:
    """Check that every such file can be read as a run reads it; large and remote files are listed as unchecked."""
    for where, path, look in _looks(settings):
        if not is_remote(path) and Path(path).is_dir():
            yield no_file(where, path)
            continue
        if not is_remote(path) and not Path(path).is_file():
            continue  # another check reports it
        if is_remote(path) or Path(path).stat().st_size > LARGE:
            why = "in object storage" if is_remote(path) else "large"
            yield Check(where, "note", f"{path}: content not checked, because it is {why}")
            continue
        try:
            yield Check(where, "ok", look())
        except TamisError as error:
            yield Check.refused(where, error)


def _looks(settings: RunSettings) -> Iterator[tuple[str, str, Callable[[], str]]]:
    if (judging := settings.judging) is not None:
        for prompts in judging.prompts:
            if prompts.path is not None:
                where = f"judging.prompts.{prompts.name}"
                yield where, prompts.path, partial(_prompts, prompts)
        for name, one in {"against": judging.against, **judging.opponents}.items():
            if isinstance(one, AnswersContestant):
                where = "judging.against" if name == "against" else f"judging.opponents.{name}"
                yield where, one.path, partial(_answers, one)
    if "influence" in settings.scores and settings.influence is not None:
        for task in settings.influence.tasks:
            where = f"influence.tasks.{task.name}"
            yield where, task.path, partial(_examples, task.path, where)
    lists = {
        path: f"raters.{rater.name}.also"
        for rater in settings.raters
        if isinstance(rater, AskedRater)
        for path in rater.also
    }
    lists |= {path: f"{cell.name}: exclude" for cell in settings.cells for path in cell.subset.exclude}
    for path, where in lists.items():
        yield where, path, partial(_ids, path, where)


def _prompts(prompts: PromptSet) -> str:
    return f"{len(questions_of(prompts)):,} prompts"


def _answers(contestant: AnswersContestant) -> str:
    return f"{len(given_answers(contestant)):,} answers"


def _ids(path: str, where: str) -> str:
    return f"{len(read_ids(path, setting=where)):,} ids"


def _examples(path: str, where: str) -> str:
    side = fields_beside()
    rows = [example_of(row, place, side) for place, row in json_rows(read_bytes(locate(path)), f"{where}: {path}")]
    return f"{len(rows):,} examples"
