"""Rater prompts: versioned YAML files with the criteria and the wording."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from tamis.core.scales import Scale
from tamis.core.settings import Settings, hash_of, load, shipped_or_own
from tamis.llm.forms import Form
from tamis.llm.numbers import FreeText
from tamis.rating.criteria import Criteria, Criterion, column_of, numbers_of
from tamis.rating.records import TAKEN

FOLDER = Path(__file__).parent
_VALUES, _DECIMALS = 101, 2  # most scores on a scale, and most decimals; models do not distinguish finer ones
_CRITERIA, _FORMAT, _SAMPLE = "{criteria}", "{format}", "{sample}"
_TOKENS, _CHARACTERS = 120, 800  # of a rationale


class CriterionSettings(Settings):
    """One criterion with a scale of its own."""

    meaning: str = Field(min_length=1, description="what it means, for the rater")
    scale: Scale | None = Field(None, description="its scale; default: the scale of the prompt")


class RationaleSettings(Settings):
    """A short text that the rater writes before its scores."""

    key: str = Field("Rationale", min_length=1, description="its key in the answer")
    keep: bool = Field(True, description="whether it becomes a column of the ratings; it is in the store either way")
    max_tokens: int = Field(
        _TOKENS, ge=8, le=4096, description="most tokens of it; they are added to those of `max_new_tokens`"
    )
    max_characters: int = Field(_CHARACTERS, ge=20, le=20_000, description="a longer one is cut, and counted")


class Prompt(Settings):
    """What a rater is asked. `before` is the same for every sample, so engines can reuse its computation."""

    version: int = Field(ge=1, description="raised with every change of the wording")
    description: str = Field(min_length=1, description="what distinguishes this prompt")
    criteria: dict[str, str | CriterionSettings] = Field(
        min_length=1,
        description="the keys of the answer, each with its meaning, or with {meaning, scale} if it has a scale of its "
        "own",
    )
    score: str | dict[str, float] | None = Field(
        None,
        description="the criterion that is the overall rating, or the weights of several: the overall rating is their "
        "mean on 1 to 10. Default: the last criterion; all scores are then stored as ratings from 1 to 10, as those "
        "of ds2-v1 are",
    )
    rationale: RationaleSettings | None = Field(None, description="a text that the rater writes before its scores")
    template: str = Field(
        description="the wording, with {criteria}, if wanted {format}, the form of the answer, and, near its end, "
        "{sample}"
    )
    scale: Scale = Field(
        Scale(),
        description="the scale that the wording asks for: whole numbers from 0 to 100 or, with `step`, with one or "
        "two decimals",
    )
    marker: str = Field(min_length=1, description="replaces the middle of a long sample")

    @field_validator("rationale", mode="before")
    @classmethod
    def _with_defaults(cls, value: Any) -> Any:
        return {} if value is True else None if value is False else value

    @field_validator("scale")
    @classmethod
    def _of_few_numbers(cls, scale: Scale) -> Scale:
        _check_scale(scale)
        return scale

    @model_validator(mode="after")
    def _asks_for_what_is_read(self) -> Prompt:
        for place in (_CRITERIA, _SAMPLE):
            if self.template.count(place) != 1:
                raise ValueError(f"the template must have {place} exactly once")
        if self.template.count(_FORMAT) > 1:
            raise ValueError(f"the template may have {_FORMAT} only once")
        if self.template.index(_SAMPLE) < max(self.template.index(_CRITERIA), self.template.find(_FORMAT)):
            raise ValueError(
                f"the template must have {_SAMPLE} after {_CRITERIA} and {_FORMAT}, so that the shared part comes first"
            )
        self._check_keys()
        self._check_score()
        return self

    def _check_keys(self) -> None:
        columns: dict[str, str] = {}
        for key, settings in self.criteria.items():
            if isinstance(settings, CriterionSettings) and settings.scale is not None:
                _check_scale(settings.scale)
            column = column_of(key)
            if not column.isidentifier() or '"' in key or "\\" in key:
                raise ValueError(f"the criterion '{key}' cannot name a column: begin with a letter, and use no quotes")
            if column in columns:
                raise ValueError(f"the criteria '{columns[column]}' and '{key}' would have the same column, {column}")
            columns[column] = key
        if self.rationale is not None and column_of(self.rationale.key) in columns:
            raise ValueError(f"the rationale has the key of a criterion: {self.rationale.key}")
        for one in self.scores.criteria:
            if one.column in TAKEN:
                raise ValueError(f"the criterion '{one.key}' would have the column {one.column}, which is taken")

    def _check_score(self) -> None:
        own = [key for key, one in self.criteria.items() if isinstance(one, CriterionSettings) and one.scale]
        if self.score is None and (own or self.rationale):
            raise ValueError(
                "a prompt with a rationale, or scales of single criteria, must say which criterion is the score, such "
                f"as score: {next(reversed(self.criteria))}"
            )
        weights = self._weights
        if unknown := [key for key in weights if key not in self.criteria]:
            raise ValueError(f"score: '{unknown[0]}' is not a criterion; there are {', '.join(self.criteria)}")
        if not weights or min(weights.values()) <= 0:
            raise ValueError("score: weights must be above 0; leave out criteria that do not count")

    @property
    def _weights(self) -> dict[str, float]:
        if isinstance(self.score, dict):
            return self.score
        return {next(reversed(self.criteria)) if self.score is None else self.score: 1.0}

    @cached_property
    def scores(self) -> Criteria:
        """The scores of an answer, and how they become the overall rating."""
        weights, total = self._weights, sum(self._weights.values()) or 1.0
        found = []
        for key, settings in self.criteria.items():
            own = settings.scale if isinstance(settings, CriterionSettings) else None
            # Without `score`, the scores are stored as in the paper, the last one as the overall rating.
            column = None if self.score is None and key in weights else column_of(key)
            found.append(Criterion(key, own or self.scale, weights.get(key, 0.0) / total, column))
        text = None
        if (said := self.rationale) is not None:
            text = FreeText(said.key, said.max_tokens, said.max_characters)
        return Criteria(tuple(found), text, mapped=self.score is None)

    @property
    def keeps_rationale(self) -> bool:
        """Whether the rationale becomes a column of the ratings."""
        return self.rationale is not None and self.rationale.keep

    @property
    def before(self) -> str:
        """The text before the sample."""
        criteria = "\n".join(
            f"- {key}: {(one if isinstance(one, str) else one.meaning).strip()}" for key, one in self.criteria.items()
        )
        shared = self.template.partition(_SAMPLE)[0]
        return shared.replace(_FORMAT, self._format).replace(_CRITERIA, criteria)

    @property
    def _format(self) -> str:
        """The form of the answer, as the rater sees it: its keys with the ends of their scales."""
        parts = [] if self.rationale is None else [f'"{self.rationale.key}": "..."']
        for one in self.scores.criteria:
            step = "" if one.scale.step is None else f", {one.scale.step:g}"
            parts.append(f'"{one.key}": <{one.scale.lowest:g}-{one.scale.highest:g}{step}>')
        return "{" + ", ".join(parts) + "}"

    @property
    def after(self) -> str:
        """The text after the sample."""
        return self.template.partition(_SAMPLE)[2].rstrip()

    @property
    def form(self) -> Form:
        """The form of the answer."""
        return self.scores.form

    @property
    def hash(self) -> str:
        """Hash of everything that ratings depend on; comments and the description are not part of it."""
        seen: list[Any] = [self.version, self.before, self.after, self.marker]
        if self.score is None:
            return hash_of(seen if self.scale == Scale() else [*seen, self.scale.model_dump(exclude_none=True)])
        criteria = [[one.key, one.scale.model_dump(exclude_none=True), one.weight] for one in self.scores.criteria]
        rationale = None if self.rationale is None else self.rationale.model_dump(exclude={"keep"})
        return hash_of([*seen, criteria, rationale])


def _check_scale(scale: Scale) -> None:
    if scale.step is None and (scale.decimals or scale.highest - scale.lowest == 1):
        raise ValueError(
            f"the scale {scale} does not say which fractions are allowed: add `step`, as in "
            f"{{lowest: {scale.lowest:g}, highest: {scale.highest:g}, step: 0.1}}; for whole numbers, step: 1"
        )
    many = len(numbers_of(scale).values)
    if not (scale.lowest >= 0 and scale.highest <= 100 and scale.decimals <= _DECIMALS and many <= _VALUES):
        raise ValueError(
            f"the scale {scale} has {many} scores with {scale.decimals} decimals; at most {_VALUES} scores from 0 "
            f"to 100, with at most {_DECIMALS} decimals, are allowed"
        )


def load_prompt(name: str) -> Prompt:
    """The prompt that ships as `name`, or the one in the YAML file at the path `name`.

    Raises:
        SettingsError: when there is none, or its file is wrong.
    """
    return load(Prompt, shipped_or_own(FOLDER, name, kind="prompt", where="prompt"))
