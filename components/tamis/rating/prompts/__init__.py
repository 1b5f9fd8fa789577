"""Rater prompts: versioned YAML files with the criteria and the wording."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from tamis.core.scales import Scale
from tamis.core.settings import Settings, hash_of, load, shipped_or_own
from tamis.llm.forms import Form
from tamis.rating.parsing import KEYS
from tamis.rating.scaling import form_of

FOLDER = Path(__file__).parent
_VALUES, _DECIMALS = 101, 2  # most scores on a scale, and most decimals; models do not distinguish finer ones
_CRITERIA, _SAMPLE = "{criteria}", "{sample}"


class Prompt(Settings):
    """What a rater is asked. `before` is the same for every sample, so engines can reuse its computation."""

    version: int = Field(ge=1, description="raised with every change of the wording")
    description: str = Field(min_length=1, description="what distinguishes this prompt")
    criteria: dict[str, str] = Field(description="the four keys of the answer, each with its meaning")
    template: str = Field(description="the wording, with {criteria} and, near its end, {sample}")
    scale: Scale = Field(
        Scale(),
        description="the scale that the wording asks for: whole numbers from 0 to 100 or, with `step`, with one or "
        "two decimals; scores are mapped to 1..10",
    )
    marker: str = Field(min_length=1, description="replaces the middle of a long sample")

    @model_validator(mode="after")
    def _asks_for_what_is_parsed(self) -> Prompt:
        if tuple(self.criteria) != KEYS:
            raise ValueError(f"criteria must be exactly, and in this order: {', '.join(KEYS)}")
        for place in (_CRITERIA, _SAMPLE):
            if self.template.count(place) != 1:
                raise ValueError(f"the template must have {place} exactly once")
        if self.template.index(_SAMPLE) < self.template.index(_CRITERIA):
            raise ValueError(f"the template must have {_SAMPLE} after {_CRITERIA}, so that the shared part comes first")
        return self

    @field_validator("scale")
    @classmethod
    def _of_few_numbers(cls, scale: Scale) -> Scale:
        if scale.step is None and (scale.decimals or scale.highest - scale.lowest == 1):
            raise ValueError(
                f"the scale {scale} does not say which fractions are allowed: add `step`, as in "
                f"{{lowest: {scale.lowest:g}, highest: {scale.highest:g}, step: 0.1}}; for whole numbers, step: 1"
            )
        many = len(form_of(scale).values)
        if not (scale.lowest >= 0 and scale.highest <= 100 and scale.decimals <= _DECIMALS and many <= _VALUES):
            raise ValueError(
                f"the scale {scale} has {many} scores with {scale.decimals} decimals; at most {_VALUES} scores from 0 "
                f"to 100, with at most {_DECIMALS} decimals, are allowed"
            )
        return scale

    @property
    def before(self) -> str:
        """The text before the sample."""
        criteria = "\n".join(f"- {key}: {meaning.strip()}" for key, meaning in self.criteria.items())
        return self.template.partition(_SAMPLE)[0].replace(_CRITERIA, criteria)

    @property
    def after(self) -> str:
        """The text after the sample."""
        return self.template.partition(_SAMPLE)[2].rstrip()

    @property
    def form(self) -> Form:
        """The form of the answer."""
        return form_of(self.scale)

    @property
    def hash(self) -> str:
        """Hash of everything that a rater sees; comments and the description are not part of it."""
        seen = [self.version, self.before, self.after, self.marker]
        return hash_of(seen if self.scale == Scale() else [*seen, self.scale.model_dump(exclude_none=True)])


def load_prompt(name: str) -> Prompt:
    """The prompt that ships as `name`, or the one in the YAML file at the path `name`.

    Raises:
        SettingsError: when there is none, or its file is wrong.
    """
    return load(Prompt, shipped_or_own(FOLDER, name, kind="prompt", where="prompt"))
