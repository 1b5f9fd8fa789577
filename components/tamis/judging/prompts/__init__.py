"""Judges' prompts: versioned YAML files with the wording, and the form of the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from tamis.core.settings import Settings, hash_of, load, shipped_or_own
from tamis.llm.forms import Form

FOLDER = Path(__file__).parent
_PLACES = ("{question}", "{first}", "{second}")
_FORMS = {
    "scores": Form.alike(("Answer 1", "Answer 2"), 1, 10),
    "verdict": Form.alike(("Better answer",), 0, 2),
}


class JudgePrompt(Settings):
    """What a judge is asked. `before` is the same for every comparison, so engines can reuse its computation."""

    version: int = Field(ge=1, description="raised with every change of the wording")
    description: str = Field(min_length=1, description="what distinguishes this prompt")
    kind: Literal["scores", "verdict"] = Field(
        description='scores: {"Answer 1": 1..10, "Answer 2": 1..10}, the higher score wins, equal scores are a tie; '
        'verdict: {"Better answer": 1, 2, or 0 for a tie}'
    )
    template: str = Field(description="the wording, with {question}, {first} and {second} in this order, near its end")
    left_out: str = Field(min_length=1, description="replaces the middle of a long answer")

    @model_validator(mode="after")
    def _has_its_places(self) -> JudgePrompt:
        for place in _PLACES:
            if self.template.count(place) != 1:
                raise ValueError(f"the template must have {place} exactly once")
        if sorted(_PLACES, key=self.template.index) != list(_PLACES):
            raise ValueError(f"the template must have {', '.join(_PLACES)} in this order")
        return self

    @property
    def before(self) -> str:
        """The text before the question."""
        return self.template.partition(_PLACES[0])[0]

    @property
    def after(self) -> str:
        """The text after the second answer."""
        return self.template.partition(_PLACES[2])[2].rstrip()

    @property
    def marker(self) -> None:
        """None: a comparison that is too long is not judged, because its middle is where one answer ends."""

    @property
    def form(self) -> Form:
        """The form of the judge's answer."""
        return _FORMS[self.kind]

    @property
    def hash(self) -> str:
        """Hash of everything that a judge sees; comments and the description are not part of it."""
        return hash_of([self.version, self.kind, self.template.rstrip(), self.left_out])

    def shown(self, question: str, first: str, second: str, longest: int) -> str:
        """A question and two answers as the judge sees them; each answer has at most about `longest` characters."""
        _, _, rest = self.template.partition(_PLACES[0])
        between, _, rest = rest.partition(_PLACES[1])
        and_then = rest.partition(_PLACES[2])[0]
        return "".join((question, between, self._fitted(first, longest), and_then, self._fitted(second, longest)))

    def _fitted(self, answer: str, longest: int) -> str:
        if len(answer) <= longest:
            return answer
        half = longest // 2
        return f"{answer[:half]}\n\n{self.left_out}\n\n{answer[-half:]}"


def load_prompt(name: str) -> JudgePrompt:
    """The prompt that ships as `name`, or the one in the YAML file at the path `name`.

    Raises:
        SettingsError: when there is none, or its file is wrong.
    """
    return load(JudgePrompt, shipped_or_own(FOLDER, name, kind="prompt", where="judge.prompt"))
