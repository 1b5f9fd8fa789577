"""One sample rated on trial, before a whole pool is: what is asked, what is answered, what it costs."""

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
    """What one sample came to.

    Attributes:
        prompt: what the rater was asked, the sample shortened.
        answer: its own words.
        rating: what was read of them.
        cost: in the money of the settings' price; None where they name none.
    """

    prompt: str
    answer: str
    rating: Rating
    cost: float | None

    def __str__(self) -> str:
        rating = self.rating
        scores = [rating.rarity, rating.complexity, rating.informativeness, rating.overall]
        read = f"{rating.status}: {rating.error}" if rating.error else f"{rating.status}, scores {scores}"
        lines = ["asked:", _indented(self.prompt), "answered:", _indented(self.answer or "(nothing)"), f"read: {read}"]
        if rating.prompt_tokens is not None:
            lines.append(f"tokens: {rating.prompt_tokens:,} of the prompt, {rating.completion_tokens or 0:,} answered")
        if self.cost is not None:
            lines.append(f"cost: {self.cost:.6f}")
        return "\n".join(lines)


def try_ratings(settings: RatingSettings, samples: Sequence[Sequence[Message]]) -> list[Trial]:
    """Rate `samples`, once each. Nothing is stored: a run asks about them again.

    Raises:
        SettingsError: when the ratings are imported, or asked by batches, which may take a day.
        ModelError: when the rater cannot be used.
    """
    if not isinstance(settings, AskedRater) or settings.backend.JOURNALED:
        raise SettingsError(f"rater '{settings.name}': {settings.backend.kind} has nothing to try")
    prompt = load_prompt(settings.prompt)
    backend = make_backend(settings, prompt)
    texts = {sample_id(list(messages)): as_text(list(messages)) for messages in samples}
    try:
        requests = [Request(sample, text) for sample, text in texts.items()]
        answers = [answer for group in backend.answer(iter([requests])) for answer in group]
    finally:
        backend.close()
    trials = []
    for answer in answers:
        rating = rating_of(answer, 1, scale=prompt.scale)
        cost = None
        if settings.price is not None:
            cost = settings.price.of(
                answer.prompt_tokens or 0,
                answer.completion_tokens or 0,
                cached_tokens=answer.cached_tokens,
                reasoning_tokens=answer.reasoning_tokens,
            )
        asked = f"{prompt.before}{_cut(texts[answer.id])}{prompt.after}"
        trials.append(Trial(asked, storable(_cut(answer.text)), rating, cost))
    return trials


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} … ({len(text) - _SHOWN:,} more characters)"


def _indented(text: str) -> str:
    """Lines that no terminal takes for commands."""
    shown = "".join(one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in text)
    return "\n".join(f"    {line}" for line in shown.splitlines())
