"""The judging stage: lets a language model compare the answers of two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from tamis.core.artifacts import Artifact, Manifest
from tamis.core.models import revision_of
from tamis.core.references import folders_in
from tamis.core.steps import Input, Step, Uri, run_step
from tamis.core.storage import fingerprint
from tamis.core.tables import JUDGEMENT, PartsWriter
from tamis.judging.asking import Asked, ask_all
from tamis.judging.contestants import Contestant, artifact_of, choice_of, file_of, name_of
from tamis.judging.match import Match
from tamis.judging.planning import plan
from tamis.judging.prompts import load_prompt
from tamis.judging.questions import Question, all_questions
from tamis.judging.records import Judged, Text, text_of, verdict_of
from tamis.judging.result import facts_of, log_result, rows_of
from tamis.judging.settings import JudgingSettings
from tamis.llm.asking import TOKENS
from tamis.llm.backends import BACKENDS
from tamis.llm.budget import Allowance, Words, at_once, limit_of
from tamis.llm.readings import counted
from tamis.llm.settings import BackendSettings, LocalModelSettings, PriceSettings, ServiceSettings
from tamis.llm.store import spare_places

__all__ = ["plan", "run"]


def run(settings: JudgingSettings, *, model: Uri | None = None, against: Uri | None = None, out: Uri) -> Manifest:
    """Compare the model artifacts `model` and `against`. In place of either, the setting of the same name may be used.

    The artifact at `out` has two rows per prompt, one for each order of the answers. The shares of wins, ties and
    losses with their intervals, and the biases of the judge, are in the manifest's facts.

    Raises:
        SettingsError: when a contestant is missing or given twice, or the judge's prompt is unknown.
        InputError: when prompts or given answers cannot be read.
        ModelError: when a model cannot be used, more than `max_failure_share` of the prompts cannot be judged, or
            `max_cost` is reached.
        StorageError: when the store cannot be read or written.
    """
    model, against = artifact_of(settings, "model", model), artifact_of(settings, "against", against)
    chosen = {which: choice_of(settings, which) for which in ("model", "against")}
    files = {f"prompts {one.name}": fingerprint(one.path) for one in settings.prompts if one.path is not None}
    files |= {which: print_ for which, one in chosen.items() if (print_ := file_of(one)) is not None}
    files |= folders_in(settings, "dataset", "tokenizer")
    files["prompt"] = load_prompt(settings.judge.prompt).hash
    backend = settings.judge.backend
    files |= BACKENDS.origin(backend.kind)
    if isinstance(backend, LocalModelSettings):  # of a service's model only the name is known
        files["judge"] = revision_of(backend.model, backend.revision)
    return run_step(
        "judging",
        "judgement",
        settings,
        _judge,
        out=out,
        inputs={"model": Input(model, "model"), "against": Input(against, "model")},
        files=files,
        name=name_of(chosen["model"], None if model is None else Artifact.open(model, "model")),
    )


def _judge(step: Step[JudgingSettings]) -> None:
    settings = step.settings
    artifacts = {which: next(iter(step.inputs(which)), None) for which in ("model", "against")}
    _services_can_be_asked(settings)
    match = Match(settings, artifacts, spare_places(step.scratch))
    questions = all_questions(settings.prompts)
    spent, reused, damaged = 0.0, 0, 0
    answered: list[Asked[Text]] = []
    written: list[dict[str, Text]] = []
    for which, contestant in zip(("model", "against"), match.contestants, strict=True):
        if contestant.given is not None:
            written.append(_given(contestant, questions))
            continue
        asked = _write(match, which, contestant, questions, spent)
        answered.append(asked)
        spent += asked.cost or 0.0
        reused, damaged = reused + asked.reused, damaged + asked.damaged
        written.append(asked.records)
    verdicts = _ask_judge(match, questions, written, spent)
    rows = [row for question in questions for row in rows_of(match, question, written, verdicts.records)]
    with PartsWriter(step.out, JUDGEMENT) as parts:
        parts.write_rows(rows)
    step.rows = parts.rows
    step.facts.update(facts_of(settings, questions, rows, match))
    step.facts |= {
        "reused_answers": reused,
        "reused_verdicts": verdicts.reused,
        "asked": len(verdicts.records) - verdicts.reused,
        "damaged_store_parts": damaged + verdicts.damaged,
        **{name: verdicts.tally.tokens[name] for name in TOKENS},
        "cut": [sum(text.cut for text in texts.values()) for texts in written],
        "thoughts_left_out": [sum(bool(text.lenient) for text in texts.values()) for texts in written],
        "lenient": counted(verdict.lenient for verdict in verdicts.records.values()),
        "prompt": {"name": settings.judge.prompt, "version": match.prompt.version, "hash": match.prompt.hash},
        "backend": dict(match.judge.identity),
    }
    if settings.price is not None or spent:
        step.facts["cost"] = round(spent + (verdicts.cost or 0.0), 6)
    for name in ("cost_of_lost_answers", "answers_without_usage"):
        found = verdicts.facts.get(name, 0) + sum(asked.facts.get(name, 0) for asked in answered)
        if found:
            step.facts[name] = found
    step.models["judge"] = str(match.judge.identity["model"])
    log_result(step.facts)


def _given(contestant: Contestant, questions: Sequence[Question]) -> dict[str, Text]:
    assert contestant.given is not None
    return {
        question.id: Text(id=question.id, status="ok", text=contestant.given[question.id], attempts=0)
        if question.id in contestant.given
        else Text(id=question.id, status="failed", error="no answer in the file", attempts=0)
        for question in questions
    }


def _write(
    match: Match, which: str, contestant: Contestant, questions: Sequence[Question], spent: float
) -> Asked[Text]:
    """Let a contestant answer all questions, then release its model."""
    chosen = getattr(match.settings, which, None)
    allowance = _allowance(match.settings, contestant.price, spent, at_once(chosen))
    backend = contestant.backend
    try:
        return ask_all(
            backend,
            match.texts_of(contestant),
            {question.id: question.text for question in questions},
            read=text_of,
            max_attempts=1,
            allowance=allowance,
            words=Words(f"'{contestant.name}'", "prompts", "answer", "answered"),
        )
    finally:
        backend.close()


def _ask_judge(
    match: Match, questions: Sequence[Question], written: Sequence[Mapping[str, Text]], spent: float
) -> Asked[Judged]:
    settings, asked = match.settings, dict[str, str]()
    for question in questions:
        one, other = (texts[question.id].text for texts in written)
        if one is not None and other is not None:
            asked |= match.comparisons(question, one, other)
    try:
        return ask_all(
            match.judge,
            match.verdicts,
            asked,
            read=partial(verdict_of, match.prompt),
            max_attempts=settings.judge.max_attempts,
            allowance=_allowance(settings, settings.price, spent, at_once(settings.judge.backend)),
            words=Words(f"judge '{settings.judge.backend.model}'", "comparisons", "verdict", "judged"),
        )
    finally:
        match.judge.close()


def _allowance(settings: JudgingSettings, price: PriceSettings | None, spent: float, most: int | None) -> Allowance:
    limit = limit_of(settings)
    money = None if limit.most is None else max(limit.most - spent, 0.0)
    left = f"{limit.called}{f', of which {spent:.4f} is spent' if spent else ''}"
    return Allowance(settings.max_failure_share, price, money, left, most, limit.raised_by)


def _services_can_be_asked(settings: JudgingSettings) -> None:
    """Check the keys of services before hours are spent on answers.

    Raises:
        SettingsError: when a key's environment variable is not set.
        MissingExtraError: when the package openai is not installed.
    """
    for service in (settings.judge.backend, settings.model, settings.against):
        if isinstance(service, ServiceSettings | BackendSettings):
            service.check()
