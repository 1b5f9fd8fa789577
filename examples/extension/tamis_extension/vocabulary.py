"""A rating backend without a model: more different words give higher scores. It is a baseline for real raters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tamis.llm.backend import Answer, Backend, Prompt, Request, Size
from tamis.llm.settings import BackendSettings

if TYPE_CHECKING:
    from tamis.core.conversations import Format
    from tamis.llm.backends.sampling import Sampling


class VocabularySettings(BackendSettings):
    """Scores by the number of different words."""

    kind: Literal["vocabulary"] = Field("vocabulary", description="scores by the number of different words")
    model: str = Field("different-words", description="name of the rater's model in artifacts")
    most: int = Field(100, ge=1, description="number of different words that gives the highest scores")

    def open(self, prompt: Prompt, sampling: Sampling, *, style: Format = "chat") -> Backend:
        """See `BackendSettings.open`."""
        return VocabularyBackend(self, prompt)


class VocabularyBackend:
    """Answers in the form that the prompt asks for (`llm.backend.Backend`)."""

    deterministic, eager = True, False

    def __init__(self, settings: VocabularySettings, prompt: Prompt) -> None:
        if prompt.form is None:
            raise ValueError("the backend vocabulary can only answer prompts that ask for numbers")
        self._settings, self._form = settings, prompt.form

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything that answers depend on."""
        return {"kind": self._settings.kind, "model": self._settings.model, "most": self._settings.most}

    def close(self) -> None:
        """Nothing to close."""

    def measure(self, texts: Sequence[str]) -> list[Size]:
        """Return sizes of 0: no tokens are used."""
        return [Size(0) for _ in texts]

    def answer(self, groups: Iterator[Iterable[Request]]) -> Iterator[Sequence[Answer]]:
        """See `Backend.answer`."""
        for group in groups:
            yield [Answer(request.id, self._answer(request.text)) for request in group]

    def _answer(self, text: str) -> str:
        share = min(len(set(text.lower().split())) / self._settings.most, 1.0)
        possible = [numbers.values for numbers in self._form.numbers]
        return self._form.write([values[round(share * (len(values) - 1))] for values in possible])
