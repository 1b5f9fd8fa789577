"""A match: two contestants and their judge, with the stores of their answers and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tamis.core.artifacts import Artifact
from tamis.core.samples import Message, sample_id
from tamis.judging.asking import known_of
from tamis.judging.contestants import Contestant, choice_of, open_contestant
from tamis.judging.prompts import load_prompt
from tamis.judging.questions import Question
from tamis.judging.records import TEXTS, VERDICTS, Text, text_of
from tamis.judging.settings import JudgingSettings
from tamis.llm.backend import Backend
from tamis.llm.backends import BACKENDS
from tamis.llm.machine import place_of_answers
from tamis.llm.store import Store


class Match:
    """Two contestants and their judge, with the stores of their answers and verdicts."""

    def __init__(
        self, settings: JudgingSettings, artifacts: Mapping[str, Artifact | None], spare: Sequence[Path] = ()
    ) -> None:
        self.settings, self.prompt, self._spare = settings, load_prompt(settings.judge.prompt), spare
        self.contestants = [
            open_contestant(choice_of(settings, which), artifacts[which], settings.answers)
            for which in ("model", "against")
        ]

        from tamis.llm.backends.sampling import Sampling

        judge = settings.judge
        sampling = Sampling(judge.temperature, judge.top_p, judge.top_k, judge.seed)
        self.judge: Backend = judge.backend.open(self.prompt, sampling)
        drawn = {"top_p": judge.top_p, "top_k": judge.top_k, "seed": judge.seed} if judge.temperature else {}
        key = {
            "verdicts": {"prompt": self.prompt.hash, "sampling": {"temperature": judge.temperature} | drawn},
            "backend": dict(self.judge.identity),
            **BACKENDS.origin(judge.backend.kind),  # another version of its package may answer differently
        }
        place = place_of_answers("judging", settings.store, getattr(judge.backend, "base_url", None))
        self.verdicts = Store(place, key, VERDICTS, spare)

    def texts_of(self, contestant: Contestant) -> Store[Text]:
        """The store of a contestant's answers."""
        return texts_of(self.settings, contestant, self._spare)

    def comparisons(self, question: Question, one: str, other: str) -> dict[str, str]:
        """The texts that the judge sees for two answers, by id, in both orders; none if the answers are equal."""
        return {} if one == other else dict(self.shown(question, one, other))

    def shown(self, question: Question, one: str, other: str) -> list[tuple[str, str]]:
        """The id and the text of each order."""
        longest = self.settings.judge.max_answer_characters
        texts = (self.prompt.shown(question.text, *pair, longest) for pair in ((one, other), (other, one)))
        return [(sample_id([Message(role="user", content=text)]), text) for text in texts]


def texts_of(settings: JudgingSettings, contestant: Contestant, spare: Sequence[Path] = ()) -> Store[Text]:
    """The store of a contestant's answers."""
    place = place_of_answers("judging", settings.store)  # the key of a service's answers contains its address
    return Store(place, {"answers": dict(contestant.key)}, TEXTS, spare)


def texts_there(settings: JudgingSettings, contestant: Contestant, questions: Sequence[Question]) -> dict[str, str]:
    """The finished answers of a contestant by question id."""
    wanted = {question.id: question.text for question in questions}
    if contestant.given is not None:
        return {key: contestant.given[key] for key in wanted if key in contestant.given}
    known = known_of(contestant.backend, texts_of(settings, contestant), wanted, 1, text_of).final
    return {key: record.text for key, record in known.items() if record.text is not None}
