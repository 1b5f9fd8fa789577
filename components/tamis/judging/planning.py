"""`tamis judge --dry-run`: what a run would do, without sending requests."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tamis.core.artifacts import Artifact
from tamis.core.steps import Uri
from tamis.judging.asking import known_of
from tamis.judging.contestants import artifact_of, choice_of, open_contestant
from tamis.judging.match import Match, texts_there
from tamis.judging.questions import all_questions
from tamis.judging.records import verdict_of
from tamis.judging.settings import JudgingSettings
from tamis.llm.backend import Backend


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do.

    Attributes:
        prompts: number of prompts in all sets.
        written: number of finished answers of each contestant.
        comparisons: number of comparisons, two per prompt.
        judged: number of comparisons with a verdict in the store.
        prompt_tokens: tokens of the judge's prompts; answers that are not written yet count with their largest length.
        completion_tokens: tokens of the judge's answers.
        cost: cost of these tokens; None if the settings have no price.
    """

    prompts: int
    written: Mapping[str, int]
    comparisons: int
    judged: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None

    def __str__(self) -> str:
        lines = [f"prompts:           {self.prompts:>15,}"]
        lines += [
            f"answers of {who}: {count:,} exist, {self.prompts - count:,} to be written"
            for who, count in self.written.items()
        ]
        lines += [
            f"comparisons:       {self.comparisons:>15,}  (both orders of each prompt)",
            f"already judged:    {self.judged:>15,}",
            f"judge's prompts:   {self.prompt_tokens:>15,}  tokens, at most",
            f"judge's answers:   {self.completion_tokens:>15,}  tokens (one attempt each)",
        ]
        return "\n".join(lines if self.cost is None else [*lines, f"judge's cost:      {self.cost:>15,.2f}  at most"])


def plan(settings: JudgingSettings, *, model: Uri | None = None, against: Uri | None = None) -> Plan:
    """What `run` would do. Sends no request and loads no weights."""
    with tempfile.TemporaryDirectory(prefix="tamis-") as cache:
        places = {"model": artifact_of(settings, "model", model), "against": artifact_of(settings, "against", against)}
        artifacts = {
            which: None if uri is None else Artifact.open(uri, "model", cache=Path(cache))
            for which, uri in places.items()
        }
        match = Match(settings, artifacts)
        questions = all_questions(settings.prompts)
        texts = [texts_there(settings, one, questions) for one in match.contestants]
        pairs = {question.id: tuple(known.get(question.id) for known in texts) for question in questions}
        asked: dict[str, str] = {}
        guessed: list[str] = []
        longest = _of_length(match.judge, settings.answers.max_new_tokens)[: settings.judge.max_answer_characters]
        for question in questions:
            one, other = pairs[question.id]
            if one is not None and other is not None:
                asked |= match.comparisons(question, one, other)
            else:
                most = settings.judge.max_answer_characters
                shown = match.prompt.shown(question.text, one or longest, other or longest, most)
                guessed += [shown, shown]
        read = partial(verdict_of, match.prompt)
        known = known_of(match.judge, match.verdicts, asked, settings.judge.max_attempts, read).final
        sizes = match.judge.measure([text for key, text in asked.items() if key not in known] + guessed)
        tokens = sum(size.prompt_tokens for size in sizes if not size.too_long)
        answers = sum(size.completion_tokens for size in sizes if not size.too_long)
        written = {one.name: len(there) for one, there in zip(match.contestants, texts, strict=True)}
        cost = settings.price.of(tokens, answers) if settings.price else None
        return Plan(len(questions), written, 2 * len(questions), len(known), tokens, answers, cost)


def opponent_there(settings: JudgingSettings) -> tuple[int, int]:
    """The number of prompts, and of finished answers of `settings.against`.

    Sends no request and loads no weights.
    """
    place, questions = artifact_of(settings, "against", None), all_questions(settings.prompts)
    artifact = None if place is None else Artifact.open(place, "model")
    opponent = open_contestant(choice_of(settings, "against"), artifact, settings.answers)
    return len(questions), len(texts_there(settings, opponent, questions))


def _of_length(backend: Backend, tokens: int) -> str:
    """A text of about `tokens` tokens, as the backend counts them."""
    word, count = "word ", 100
    none, some = (size.prompt_tokens for size in backend.measure(["", word * count]))
    return word * math.ceil(tokens * count / max(some - none, 1))
