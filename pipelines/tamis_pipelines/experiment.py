"""The cells of an experiment: which subsets are made, and which model is trained on each with which seed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from tamis.core.references import TrainedModel
from tamis.core.settings import Settings
from tamis.evaluation.settings import EvaluationSettings
from tamis.finetuning.settings import FinetuningSettings
from tamis.judging.settings import Contestant, JudgingSettings
from tamis.reporting.outcomes import BASE, is_base
from tamis.selection.settings import VARIANT, Amount, SelectionSettings, StrategyName
from tamis.selection.strategies import STRATEGIES, strategy_named
from tamis.selection.strategies.base import Variant

if TYPE_CHECKING:
    from tamis_pipelines.settings import RunSettings


def _named(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


class BaseModelChoice(Settings):
    """A base model of an experiment; a text alone is its `model`."""

    model: TrainedModel = Field(min_length=1, description="a Hub name, or a folder in Hugging Face layout")
    revision: str | None = Field(None, description="commit or tag of the Hub model")


class ExperimentSettings(Settings):
    """Which cells an experiment has: every strategy with every rater and size, each for every seed and base model."""

    strategies: list[StrategyName] = Field([], description="strategies; those that use ratings run once for each rater")
    variant: Variant = Field("published", description=VARIANT)
    raters: list[str] | None = Field(None, min_length=1, description="names of raters; null: all raters of the run")
    sizes: list[Amount] = Field([], description="samples of each subset: numbers, or shares of the pool below 1")
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(
        [42], min_length=1, description="random seeds; each makes cells whose selection and training use it"
    )
    models: list[Annotated[BaseModelChoice, BeforeValidator(_named)]] = Field(
        [], description="base models, each trained on every subset; empty: finetuning.model"
    )

    @model_validator(mode="after")
    def _nothing_is_listed_twice(self) -> ExperimentSettings:
        for name in ("strategies", "raters", "sizes", "seeds"):
            listed = getattr(self, name) or []
            if twice := [item for item in listed if listed.count(item) > 1]:
                raise ValueError(f"{name} has {twice[0]} twice; give it once")
        return self

    @model_validator(mode="after")
    def _strategies_have_sizes(self) -> ExperimentSettings:
        if not self.sizes and any(STRATEGIES[name].sized for name in self.strategies):
            without = ", ".join(name for name, strategy in STRATEGIES.items() if not strategy.sized)
            raise ValueError(f"strategies need sizes; only {without} has none")
        return self


class CellsJudging(JudgingSettings):
    """How the model of every cell is judged."""

    opponents: dict[str, Contestant] = Field(
        {}, description="opponents by base model (its name or path); other base models have the opponent `against`"
    )

    @model_validator(mode="after")
    def _cells_are_judged(self) -> CellsJudging:
        if self.model is not None:
            raise ValueError("model has no effect: every cell's own model is judged; leave it out")
        return self

    def of(self, model: str) -> JudgingSettings:
        """How cells of the base model `model` are judged.

        Raises:
            ValueError: when they have no opponent.
        """
        opponent = self.opponents.get(model, self.against)
        if opponent is None:
            raise ValueError(
                f"judging: no opponent for the base model {model}; give against, or opponents by base model"
            )
        given = {name: getattr(self, name) for name in self.model_fields_set if name != "opponents"}
        return JudgingSettings(**given | {"against": opponent})


@dataclass(frozen=True)
class Cell:
    """One subset, and the training of one base model on it; in runs that train nothing, the subset alone."""

    subset: SelectionSettings
    finetuning: FinetuningSettings | None

    @property
    def name(self) -> str:
        """What its subset, its model and its scores are called."""
        return self.subset.name


def cells(settings: RunSettings) -> list[Cell]:
    """All cells of a run, in order: the listed subsets, then the experiment's by strategy, size and rater.

    Without the section `experiment` there is one for each listed subset, as it stands. With it, names tell cells apart
    and stay what they are when strategies, raters, sizes, seeds or models are added, so that what is finished stays
    finished: "ds2-10000-llama-s42", and "ds2-10000-llama-s42-Mistral-7B-v0.3" for a base model other than
    `finetuning.model`.
    """
    grid, training = settings.experiment, settings.finetuning
    if grid is None:
        return [Cell(subset, _trained(training)) for subset in settings.subsets]
    made = []
    for given in [*(subset.model_dump(exclude_unset=True) for subset in settings.subsets), *_grid(grid, settings)]:
        for base in base_models(settings):
            for seed in grid.seeds:
                name = f"{given['name']}-s{seed}{_suffix(base, settings)}"
                subset = SelectionSettings(**given | {"name": name, "seed": seed})
                made.append(Cell(subset, _trained(training, seed=seed, model=base.model, revision=base.revision)))
    return made


def check_grid(settings: RunSettings) -> None:
    """Refuse what an experiment would pass over without a word, and base models whose cells would have one name.

    Raises:
        ValueError: naming the setting.
    """
    grid, known = settings.experiment, settings.rater_names
    if grid is None:
        return
    if unknown := [name for name in grid.raters or [] if name not in known]:
        raise ValueError(f"experiment.raters: no rater '{unknown[0]}'; allowed: {', '.join(known)}")
    _check_seeds(settings, grid.seeds)
    _check_base_models(settings, grid.models)


def _check_seeds(settings: RunSettings, seeds: list[int]) -> None:
    """A seed that is set beside the experiment's must be one of them; one that is the default may be a preset's."""
    sections: list[tuple[str, SelectionSettings | FinetuningSettings | None]] = [
        *((f"subsets.{subset.name}", subset) for subset in settings.subsets),
        ("finetuning", settings.finetuning),
    ]
    for where, section in sections:
        if section is not None and section.seed not in (type(section).model_fields["seed"].default, *seeds):
            raise ValueError(
                f"{where}.seed is {section.seed}, but every cell has a seed of experiment.seeds, which are "
                f"{', '.join(map(str, seeds))}; leave it out, or list it there"
            )


def _check_base_models(settings: RunSettings, models: list[BaseModelChoice]) -> None:
    if models and settings.finetuning is None:
        raise ValueError("experiment.models has no effect without the section finetuning; leave models out")
    by_suffix: dict[str, BaseModelChoice] = {}
    for base in models:
        other = by_suffix.setdefault(_suffix(base, settings), base)
        if other is not base:
            raise ValueError(
                f"experiment.models: {_shown(other)} and {_shown(base)} would give cells with the same names, because "
                "these contain only the last part of the model's name; use a separate run, with its own work_dir, for "
                "one of them"
            )


def _shown(base: BaseModelChoice) -> str:
    return base.model if base.revision is None else f"{base.model} ({base.revision})"


def check_names(settings: RunSettings) -> None:
    """Reject names with which a report would mistake a trained model for a base model, or the reverse.

    Raises:
        ValueError: naming the cell, or the setting.
    """
    if settings.evaluation is None:
        return
    if (name := settings.evaluation.name) != BASE:
        raise ValueError(
            f"evaluation.name is {name}, but in a run the evaluations of base models must be called {BASE} or "
            f"{BASE}-…, so that the report recognises them; leave it out"
        )
    for cell in settings.cells:
        if is_base(cell.name):
            raise ValueError(
                f"the subset '{cell.name}': {BASE}, and names that begin with {BASE}-, are reserved for evaluations of "
                "base models; give the subset another name"
            )


def base_models(settings: RunSettings) -> list[BaseModelChoice]:
    """The base models that are trained; one that is never used where a run trains nothing."""
    if settings.experiment is not None and settings.experiment.models:
        return list(settings.experiment.models)
    training = settings.finetuning or FinetuningSettings()
    return [BaseModelChoice(model=training.model, revision=training.revision)]


def base_evaluations(settings: RunSettings) -> list[EvaluationSettings]:
    """How each base model that is trained is evaluated as it is: as "base", or as "base-…" beside another."""
    evaluation = settings.evaluation
    if evaluation is None:
        return []
    return [
        evaluation.model_copy(update=base.model_dump() | {"name": f"{evaluation.name}{_suffix(base, settings)}"})
        for base in base_models(settings)
    ]


def _grid(grid: ExperimentSettings, settings: RunSettings) -> Iterator[dict[str, Any]]:
    """What is given for each subset of the grid, before seeds and base models."""
    raters = grid.raters or [rater.name for rater in settings.raters]
    for strategy in grid.strategies:
        variant: Variant = grid.variant if STRATEGIES[strategy].ds2_paper else "published"
        for size in grid.sizes if STRATEGIES[strategy].sized else [None]:
            for rater in raters if strategy_named(strategy, variant).rated else [None]:
                parts = [
                    strategy,
                    *([f"{size:g}" if size < 1 else str(size)] if size else []),
                    *([rater] if rater else []),
                ]
                given = {
                    "name": "-".join(parts),
                    "strategy": strategy,
                    "size": size,
                    "rater": rater,
                    "variant": variant,
                }
                yield {key: value for key, value in given.items() if value is not None}


def _suffix(base: BaseModelChoice, settings: RunSettings) -> str:
    if settings.finetuning is None or base.model == settings.finetuning.model:
        return ""
    last = base.model.rstrip("/").rsplit("/", 1)[-1]
    return "-" + re.sub(r"[^A-Za-z0-9._-]+", "-", last)


def _trained(training: FinetuningSettings | None, **changes: Any) -> FinetuningSettings | None:
    """The training of a cell, which always states its model and seed."""
    if training is None:
        return None
    return training.model_copy(update={"model": training.model, "seed": training.seed} | changes)
