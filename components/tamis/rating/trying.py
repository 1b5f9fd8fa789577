"""Trial ratings, before a whole pool is rated: the prompt, the answer and its cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tamis.core.errors import SettingsError
from tamis.core.samples import Message, as_text, sample_id
from tamis.llm.backend import Request
from tamis.llm.faults import storable
from tamis.rating.backends import make_backend
from tamis.rating.prompts import load_prompt
from tamis.rating.records import Rating, rating_of
from tamis.rating.settings import AskedRater, RatingSettings

_SHOWN = 2_000  # characters of a sample or an answer


@dataclass(frozen=True)
class Trial:
    """The trial rating of one sample.

    Attributes:
        prompt: the prompt, with the sample shortened.
        answer: the answer of the model.
        rating: the rating read from the answer.
        cost: in the currency of the price; None if the settings have no price.
        columns: the columns of the criteria.
    """

    prompt: str
    answer: str
    rating: Rating
    cost: float | None
    columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        rating = self.rating
        own = {name: getattr(rating, name) for name in self.columns}
        scores = ", ".join(f"{name} {value}" for name, value in own.items() if value is not None)
        scores = f"{scores}{scores and '; '}overall rating {rating.overall} of 10"
        read = f"{rating.status}: {rating.error}" if rating.error else f"{rating.status}, {scores}"
        if rating.lenient:
            read += f"; accepted although its form is wrong: {rating.lenient}"
        lines = ["prompt:", _indented(self.prompt), "answer:", _indented(self.answer or "(empty)"), f"read as: {read}"]
        if rating.prompt_tokens is not None:
            lines.append(
                f"tokens: {rating.prompt_tokens:,} in the prompt, {rating.completion_tokens or 0:,} in the answer"
            )
        if self.cost is not None:
            lines.append(f"cost: {self.cost:.6f}")
        return "\n".join(lines)


def try_ratings(settings: RatingSettings, samples: Sequence[Sequence[Message]]) -> list[Trial]:
    """Rate `samples`, once each. Nothing is stored; a run asks about them again.

    Raises:
        SettingsError: when the ratings are imported, or come in batches, which may take a day.
        ModelError: when the rater cannot be used.
    """
    if not isinstance(settings, AskedRater) or settings.backend.JOURNALED:
        raise SettingsError(f"rater '{settings.name}': the backend {settings.backend.kind} cannot be tried")
    prompt = load_prompt(settings.prompt)
    backend = make_backend(settings, prompt)
    texts = {sample_id(list(messages)): as_text(list(messages)) for messages in samples}
    try:
        requests = [Request(sample, text) for sample, text in texts.items()]
        answers = [answer for group in backend.answer(iter([requests])) for answer in group]
    finally:
        backend.close()
    trials = []
    columns = tuple(field.name for field in prompt.scores.fields)
    for answer in answers:
        rating = rating_of(answer, 1, criteria=prompt.scores)
        cost = None
        if settings.price is not None:
            cost = settings.price.of(
                answer.prompt_tokens or 0,
                answer.completion_tokens or 0,
                cached_tokens=answer.cached_tokens,
                reasoning_tokens=answer.reasoning_tokens,
            )
        asked = f"{prompt.before}{_cut(texts[answer.id])}{prompt.after}"
        trials.append(Trial(asked, storable(_cut(answer.text)), rating, cost, columns))
    return trials


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} … ({len(text) - _SHOWN:,} more characters)"


def _indented(text: str) -> str:
    """The text, indented, without characters that a terminal may take as commands."""
    shown = "".join(one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in text)
    return "\n".join(f"    {line}" for line in shown.splitlines())
