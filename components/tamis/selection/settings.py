"""Settings of the selection stage."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    create_model,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo

from tamis.core.conditions import conditions
from tamis.core.errors import RegistryError, SettingsError
from tamis.core.references import DataPath
from tamis.core.settings import StageSettings
from tamis.selection.strategies import STRATEGIES, strategy_named, varied, with_means
from tamis.selection.strategies.base import RankBy, Strategy, Variant

if TYPE_CHECKING:
    StrategyName = str
else:
    StrategyName = Literal[tuple(STRATEGIES)]
# Settings of one strategy that Tamis 0.4 accepted for every strategy, without effect.
_TAKEN_BY_ALL = {"k", "max_similarity", "memory_mb"}
# Settings of one strategy that are part of every subset's key, so that results of Tamis 0.4 are reused.
_IN_EVERY_KEY = {*_TAKEN_BY_ALL, "task"}


def _amount(value: Any) -> int | float:
    """A whole number of samples, or a share; Kubeflow passes whole numbers as floats."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0 or (value > 1 and value % 1):
        raise ValueError("give a whole number of samples, or a share between 0 and 1")
    return value if value < 1 else int(value)


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Amount = Annotated[int | float, BeforeValidator(_amount)]
VARIANT = f"ds2-paper: {', '.join(varied()[:-1])} and {varied()[-1]} as run in the DS2 paper's experiments"


class _AllStrategies(StageSettings):
    """Settings that all strategies have."""

    OUTPUT_REVISION: ClassVar[int] = 1

    name: str = Field(
        description="name of the subset, also in reports",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=150,
    )
    strategy: StrategyName = Field(description="how samples are chosen")
    variant: Variant = Field("published", description=VARIANT)
    rank_by: RankBy = Field(
        "class",
        description=f"{', '.join(with_means())}: rank by the curated score class, as published, or by the posterior "
        "mean of the true class",
    )
    size: Amount | None = Field(None, description="number of samples, or a share of the pool below 1; omit it for full")
    rater: str | None = Field(None, description="rater whose scores are used; optional if there is only one")
    min_score: int | None = Field(
        None,
        ge=0,
        le=5,
        description="lowest score class that may be picked; samples without a score are not picked either",
    )
    where: dict[str, Any] = Field(
        {},
        description="conditions on signals that every picked sample meets, as in {language: en, loop_share: {<: 0.3}}",
    )
    sources: dict[str, Amount] = Field(
        {}, description="how much of the subset comes from each named source: a number, or a share of the size below 1"
    )
    exclude: Annotated[tuple[DataPath, ...], BeforeValidator(_as_tuple)] = Field(
        (), description="files (txt, jsonl, csv, parquet) with the ids of samples that are never picked"
    )
    seed: int = Field(42, ge=0, lt=2**63, description="seed of random choices and of the order of equal samples")

    @field_validator("where")
    @classmethod
    def _conditions(cls, where: dict[str, Any]) -> dict[str, Any]:
        try:
            conditions(where)
        except SettingsError as error:
            raise ValueError(str(error)) from None
        return where

    @model_validator(mode="after")
    def _fits_together(self) -> _AllStrategies:
        strategy = STRATEGIES[self.strategy]
        if not strategy.sized and (self.size is not None or self.sources):
            raise ValueError(f"{self.strategy} takes every sample; omit size and sources, or use the strategy random")
        if strategy.sized and self.size is None:
            raise ValueError(f"the strategy {self.strategy} needs a size")
        if self.variant != "published" and strategy.ds2_paper is None:
            raise ValueError(f"the DS2 paper ran the strategy {self.strategy} as published; omit variant")
        if self.rank_by != "class" and strategy.by_mean is None:
            raise ValueError(
                f"rank_by: mean works with the strategy {', '.join(with_means())} only; the strategy {self.strategy} "
                "allows class, the default"
            )
        own = strategy_of(self).settings.model_fields
        for name, owners in OWN.items():
            unused = name not in own and getattr(self, name) != type(self).model_fields[name].default
            if unused and name not in _TAKEN_BY_ALL:
                published = ", as published" if self.strategy in owners else ""
                raise ValueError(f"{name} works with the strategy {' or '.join(owners)} only{published}; omit it")
        return self

    @model_serializer(mode="wrap")
    def _without_those_of_others(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit settings of other strategies, so that a new strategy does not change the keys of existing subsets."""
        values: dict[str, Any] = handler(self)
        others = {name for name, owners in OWN.items() if self.strategy not in owners} - _IN_EVERY_KEY
        others |= set() if self.where else {"where"}  # so that the keys of subsets without it do not change
        return {name: value for name, value in values.items() if name not in others}


def strategy_of(settings: SelectionSettings) -> Strategy:
    """The strategy that the settings name, with its own settings."""
    strategy = strategy_named(settings.strategy, settings.variant, settings.rank_by)
    own = {name: getattr(settings, name) for name in strategy.settings.model_fields}
    return replace(strategy, options=strategy.settings(**own))


def _owners() -> dict[str, list[str]]:
    """The names of the strategies that have each setting of a strategy's own."""
    owners: dict[str, list[str]] = {}
    for name, strategy in STRATEGIES.items():
        for setting in strategy.settings.model_fields:
            owners.setdefault(setting, []).append(name)
    return owners


def _own_fields() -> dict[str, Any]:
    """The strategies' own settings as fields of `SelectionSettings`.

    Raises:
        RegistryError: when one has no default, or its meaning differs between strategies or from a common setting.
    """
    fields: dict[str, Any] = {}
    for setting, owners in OWN.items():
        meant = [STRATEGIES[name].settings.model_fields[setting] for name in owners]
        field = meant[0]
        if setting in _AllStrategies.model_fields or any(not _same(field, other) for other in meant):
            raise RegistryError(
                f"the setting {setting} of the strategy {owners[-1]} already exists with another meaning",
                action="choose another name, or inherit the setting from the settings that have it",
            )
        if field.is_required():
            raise RegistryError(f"the setting {setting} of the strategy {owners[0]} has no default")
        shown = field.merge_field_infos(field, description=f"{', '.join(owners)}: {field.description}")
        fields[setting] = (field.annotation, shown)
    return fields


def _same(one: FieldInfo, other: FieldInfo) -> bool:
    return (one.annotation, one.default, one.description) == (other.annotation, other.default, other.description)


OWN = _owners()
if TYPE_CHECKING:
    SelectionSettings = _AllStrategies
else:
    SelectionSettings = create_model(
        "SelectionSettings",
        __base__=_AllStrategies,
        __module__=__name__,
        __doc__="Which samples make up one subset (paper section 4.3 and the baselines of section 5).",
        **_own_fields(),
    )
