"""Reads questions from prompt sets, and existing answers."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tamis.core.errors import InputError
from tamis.core.hub import Wanted, load_split
from tamis.core.jsonrows import json_rows
from tamis.core.samples import Message, sample_id
from tamis.core.storage import locate, read_bytes
from tamis.judging.settings import AnswersContestant, PromptSet

log = logging.getLogger(__name__)
_HALF = re.compile("[\ud800-\udfff]")  # allowed in JSON, but not in UTF-8


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt. `id` depends only on its text, so other runs find its answers and verdicts."""

    id: str
    text: str
    set: str = ""


def questions_of(prompts: PromptSet) -> list[Question]:
    """The questions of a set, in the order of its file, each text once.

    Raises:
        InputError: when a row is not a JSON object, or has no text in a field; or there are no questions.
        StorageError: when the file cannot be read.
        MissingExtraError: when `datasets` is not installed and the set is on the Hub.
    """
    where = f"prompt set '{prompts.name}'"
    texts = dict.fromkeys(_joined(row, prompts.fields, place) for place, row in _rows(prompts, where))
    found = [Question(_id_of(text), text, prompts.name) for text in texts]
    if not found:
        raise InputError(f"{where}: {prompts.path or prompts.dataset} is empty")
    if prompts.limit is None or prompts.limit >= len(found):
        return found
    chosen = np.random.default_rng(prompts.seed).choice(len(found), prompts.limit, replace=False)
    return [found[place] for place in sorted(chosen)]


def all_questions(sets: Sequence[PromptSet]) -> list[Question]:
    """The questions of all sets; a question in several sets belongs to the first."""
    found: dict[str, Question] = {}
    for prompts in sets:
        for question in questions_of(prompts):
            found.setdefault(question.id, question)
    return list(found.values())


def given_answers(contestant: AnswersContestant) -> dict[str, str]:
    """The answers in a contestant's file by question id; of several answers to one question the first counts.

    Rows without an answer, or with an empty one, are left out with a warning.

    Raises:
        InputError: when a row is not a JSON object, or lacks a field; or no row has an answer.
        StorageError: when the file cannot be read.
    """
    found: dict[str, str] = {}
    rows, empty, where = 0, 0, f"answers '{contestant.name}'"
    for place, row in _lines(contestant.path, where):
        rows += 1
        answer = "" if _at(row, contestant.answer, place) is None else _text_at(row, contestant.answer, place)
        identity = _id_of(_joined(row, contestant.fields, place))
        if answer:
            found.setdefault(identity, answer)
        else:
            empty += 1
    if not found:
        raise InputError(
            f"{where}: none of the {rows:,} rows of {contestant.path} has an answer",
            action="check the file and the setting `answer`",
        )
    if empty:
        log.warning("%s: %s of %s rows have no answer in '%s'", where, f"{empty:,}", f"{rows:,}", contestant.answer)
    return found


def _id_of(text: str) -> str:
    return sample_id([Message(role="user", content=text)])


def _rows(prompts: PromptSet, where: str) -> Iterator[tuple[str, Any]]:
    return _lines(prompts.path, where) if prompts.path else _hub_rows(prompts, where)


def _lines(path: str, where: str) -> Iterator[tuple[str, Any]]:
    return json_rows(read_bytes(locate(path)), f"{where}: {path}")


def _hub_rows(prompts: PromptSet, where: str) -> Iterator[tuple[str, Any]]:
    default = PromptSet.model_fields["split"].default
    split = None if prompts.split == default else prompts.split
    wanted = Wanted(where, str(prompts.dataset), prompts.config, split, prompts.revision, usual=default)
    rows, taken, _ = load_split(wanted)
    if split is None and taken not in (None, default):  # the only split in a folder written by `save_to_disk`
        raise InputError(
            f"{where}: {prompts.dataset} has no split '{default}'", allowed=str(taken), action="set `split`"
        )
    for number, row in enumerate(rows):
        yield f"{where}: {prompts.dataset}, row {number}", row


def _joined(row: Any, fields: Sequence[str], place: str) -> str:
    parts = [_text_at(row, field, place) for field in fields]
    if not parts[0]:
        raise _fault(place, f"'{fields[0]}' is empty")
    return "\n\n".join(part for part in parts if part)


def _text_at(row: Any, field: str, place: str) -> str:
    value = _at(row, field, place)
    if not isinstance(value, str):
        raise _fault(place, f"'{field}' is not text")
    if _HALF.search(value):
        raise _fault(place, f"'{field}' contains half of a surrogate pair, which is not a character")
    return value.strip()


def _at(row: Any, field: str, place: str) -> Any:
    value = row
    for part in field.split("."):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, ValueError, TypeError):
            names = ", ".join(row) if isinstance(row, dict) else "none, because it is not an object"
            raise _fault(place, f"there is no field '{field}'; fields: {names}") from None
    return value


def _fault(place: str, problem: str) -> InputError:
    return InputError(
        f"{place}: {problem}",
        action="correct the file, or name its fields, as in fields: [instruction, instances.0.input]",
    )
