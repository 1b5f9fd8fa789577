"""Settings of a whole run: one section per stage, as in `examples/`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field, SerializeAsAny, ValidationInfo, create_model, field_validator, model_validator

from tamis.core.errors import RegistryError, SettingsError
from tamis.core.references import WorkFolder
from tamis.core.settings import Settings, filled, load_yaml, parse, said, with_overrides
from tamis.core.storage import is_remote
from tamis.curation.settings import COMBINED, CurationSettings
from tamis.embedding.settings import EmbeddingSettings
from tamis.evaluation.settings import EvaluationSettings
from tamis.finetuning.on_trainer import check_nodes
from tamis.finetuning.settings import FinetuningSettings
from tamis.influence.settings import InfluenceSettings
from tamis.judging.settings import JudgingSettings
from tamis.nearcopies.settings import NearCopiesSettings
from tamis.neighbors.settings import NeighborsSettings
from tamis.pool.settings import PoolSettings
from tamis.rating.settings import RatingSettings
from tamis.reporting.settings import ReportingSettings
from tamis.scoring.measures import MEASURES
from tamis.scoring.settings import ScoringSettings
from tamis.selection.settings import SelectionSettings, strategy_of
from tamis.signals.settings import DescribeSettings
from tamis.signals.stage import columns_of
from tamis_pipelines import sharding
from tamis_pipelines.budget import BudgetSettings, check_prices
from tamis_pipelines.experiment import (
    Cell,
    CellsJudging,
    ExperimentSettings,
    base_evaluations,
    base_models,
    cells,
    check_grid,
    check_names,
)
from tamis_pipelines.groups import grouped
from tamis_pipelines.pods import OPTIONAL_STEPS, SCORE_PODS, CompileSettings, KubeflowSettings, ScoreName
from tamis_pipelines.rates import RatesSettings

Payer = TypeVar("Payer", RatingSettings, JudgingSettings)
# Sections that the pipelines get cell by cell.
_PLANNED = {"subsets", "experiment", "finetuning", "evaluation", "judging"}


class _UpToCuration(Settings):
    """The sections of the steps up to curation."""

    work_dir: WorkFolder = Field(description="folder for results and finished steps of local runs")
    name: str = Field(
        "",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$",
        max_length=100,
        description="name of a local run; its results are in work_dir/runs/NAME and leave those of other runs alone; "
        "empty: results are in work_dir",
    )
    pool: PoolSettings = Field(description="where the samples come from")
    near_copies: NearCopiesSettings | None = Field(
        None, description="which samples are dropped as near-copies before they are rated; null: none"
    )
    raters: list[SerializeAsAny[RatingSettings]] = Field(
        min_length=1, description="one or more raters; each rates the whole pool, or a `sample` of it"
    )
    embedding: EmbeddingSettings = Field(EmbeddingSettings(), description="how samples become vectors")
    neighbors: NeighborsSettings = Field(NeighborsSettings(), description="how nearest neighbours are found")
    curation: CurationSettings = Field(CurationSettings(), description="how the raters' errors are estimated")


if TYPE_CHECKING:
    _UpToScores = _UpToCuration
else:  # one section per measure
    _UpToScores = create_model(
        "_UpToScores",
        __base__=_UpToCuration,
        __module__=__name__,
        **{
            name: (ScoringSettings, Field(ScoringSettings.of(name), description=f"scores by {name}"))
            for name in MEASURES
        },
    )


class RunSettings(_UpToScores):
    """Settings of `tamis run` and of the Kubeflow pipelines.

    Without `finetuning`, a run ends with the subsets and their report (pipeline `data-selection`). With it, a model is
    finetuned on each subset and evaluated next to the base model (pipeline `experiment`). `subsets` lists single
    subsets; `experiment` combines strategies, raters, sizes, seeds and base models.
    """

    describe: DescribeSettings | None = Field(
        None, description="signals of every sample, such as language and repetition, for the report; null: none"
    )
    influence: InfluenceSettings | None = Field(None, description="scores for the strategy less, which requires them")
    subsets: list[SelectionSettings] = Field([], description="subsets to select, one by one")
    experiment: ExperimentSettings | None = Field(None, description="subsets to select and train on, as a grid")
    finetuning: FinetuningSettings | None = Field(
        None, description="how a model is trained on each subset; null: no training"
    )
    evaluation: EvaluationSettings | None = Field(
        None, description="how trained models and their base models are evaluated; required with finetuning"
    )
    judging: CellsJudging | None = Field(
        None, description="how every cell's model is judged against an opponent; needs finetuning; null: no judging"
    )
    report: ReportingSettings = Field(ReportingSettings(), description="title, notes and truth of the report")
    budget: BudgetSettings | None = Field(None, description="limit for the cost of the whole run; null: no limit")
    rates: RatesSettings = Field(
        RatesSettings(), description="the rates by which `tamis plan` calculates and `budget` is divided"
    )
    kubeflow: KubeflowSettings = Field(KubeflowSettings(), description="pods on a cluster; local runs ignore it")

    @field_validator("work_dir", mode="before")
    @classmethod
    def _works_on_this_machine(cls, folder: Any) -> Any:
        if isinstance(folder, str) and is_remote(folder):  # as a Path it would be a folder called "s3:"
            raise ValueError(
                "work_dir must be a folder on this machine; only a rater's `store` may be in object storage"
            )
        return folder

    @field_validator(*MEASURES, mode="before")
    @classmethod
    def _measures_what_it_is_called(cls, section: Any, info: ValidationInfo) -> Any:
        if isinstance(section, Mapping):
            measure = section.get("measure") or {}
            if isinstance(measure, Mapping):
                return {**section, "measure": {"kind": info.field_name, **measure}}
        return section

    @model_validator(mode="after")
    def _fits_together(self) -> RunSettings:
        if not self.cells:
            raise ValueError("no subset is selected; list `subsets`, or set strategies and sizes in `experiment`")
        check_grid(self)
        for what, named in (("raters", self.raters), ("subsets", self.cells)):
            names = Counter(item.name for item in named)
            twice = [name for name, count in names.items() if count > 1]
            if twice:
                raise ValueError(f"two {what} have the name '{twice[0]}'; give them different names")
        self._raters_are_known()
        self._signals_are_made()
        self._raters_are_different()
        sharding.check(self.raters, self.kubeflow.rating_shards)
        check_prices(self)
        self._nodes_fit()
        self._what_is_compiled_in_is_used()
        for section in MEASURES:
            kind = getattr(self, section).measure.kind
            if kind != section:
                raise ValueError(f"{section}.measure.kind is {kind}; allowed here: {section}")
        if "influence" in self.scores and self.influence is None:
            raise ValueError(
                "the strategy less needs a section influence, with the tasks that training should help with"
            )
        if self.neighbors.shard != "1/1":
            raise ValueError("neighbors.shard is only for `tamis neighbors`; a run always searches all samples")
        if (self.finetuning is None) != (self.evaluation is None):
            raise ValueError("finetuning and evaluation need each other; give both sections, or neither")
        self._the_base_is_what_is_trained()
        self._the_graph_is_large_enough()
        check_names(self)
        if self.judging is not None:
            if self.finetuning is None:
                raise ValueError("judging needs finetuning, because without it there is no model to judge")
            for base in base_models(self):
                self.judging.of(base.model)
        return self

    def _raters_are_different(self) -> None:
        """Refuse two raters with the same answers, which curation would take for agreement."""
        for place, rater in enumerate(self.raters):
            for other in self.raters[:place]:
                if rater.answers_known_by() == other.answers_known_by():
                    raise ValueError(
                        f"the raters '{other.name}' and '{rater.name}' would give the same answers, which curation "
                        "would take for perfect agreement. They differ in nothing that changes answers; name, limits, "
                        "prices and `sample` do not, and `seed` does so only with a temperature above 0. Remove one "
                        "of them, give it another model or prompt, or give both a temperature above 0 and different "
                        "seeds"
                    )

    def _the_graph_is_large_enough(self) -> None:
        """Check that the graph will have as many neighbours as strategies and curation need."""
        needed = {f"subset '{cell.name}': k": strategy_of(cell.subset).neighbors for cell in self.cells}
        if self.curation.diversity == "paper":
            needed["curation.diversity_neighbors"] = self.curation.diversity_neighbors
        for where, k in needed.items():
            if k > self.neighbors.k:
                raise ValueError(
                    f"{where} is {k}, but neighbors.k is only {self.neighbors.k}; raise neighbors.k, or lower the other"
                )

    def _the_base_is_what_is_trained(self) -> None:
        if self.evaluation is None or self.finetuning is None or (self.experiment and self.experiment.models):
            return
        for name in self.evaluation.model_fields_set & {"model", "revision"}:
            evaluated, trained = getattr(self.evaluation, name), getattr(self.finetuning, name)
            if evaluated != trained:
                raise ValueError(
                    f"evaluation.{name} is {evaluated}, but finetuning.{name} is {trained}; a run compares trained "
                    f"models with their own base model, so remove evaluation.{name}"
                )

    def _nodes_fit(self) -> None:
        nodes = self.kubeflow.nodes
        if nodes is None:
            return
        if nodes.place is None or self.finetuning is None:
            raise ValueError(
                "kubeflow.trainer needs finetuning, and place, a prefix in object storage through which the pipeline "
                "and its TrainJobs exchange data"
            )
        try:
            check_nodes(self.finetuning, nodes)
        except SettingsError as error:
            raise ValueError(f"kubeflow.trainer: {error}") from None

    def _what_is_compiled_in_is_used(self) -> None:
        """Refuse steps that are compiled in but have no settings: they would fail after the raters were paid."""
        fixed = self.kubeflow.compiled
        idle = [f"scores: {name}" for name in fixed.scores if name not in self.scores]
        idle += [name for name in OPTIONAL_STEPS if getattr(fixed, name) and getattr(self, name) is None]
        if self.finetuning is not None:
            used_by = {"judging": self.judging, "trainer": self.kubeflow.trainer}
            idle += [step for step, section in used_by.items() if getattr(fixed, step) and section is None]
        if idle:
            raise ValueError(
                f"kubeflow.compiled.{idle[0]}: nothing in these settings uses that step. Remove it, because the steps "
                "of a run are compiled in automatically, or add what uses it: a strategy, describe, judging or "
                "kubeflow.trainer"
            )

    def _signals_are_made(self) -> None:
        """Check that the run makes the signals that conditions name."""
        known = [] if self.describe is None else list(columns_of(self.describe))
        for cell in self.cells:
            tokens = ["tokens"] if "tokens" in strategy_of(cell.subset).columns else []
            for name in (*cell.subset.where, *tokens):
                if name not in known:
                    hint = ", ".join(known) if known else "none; add the section `describe: {}`"
                    raise ValueError(f"the subset '{cell.name}' uses the signal '{name}'; signals of this run: {hint}")

    def _raters_are_known(self) -> None:
        known = self.rater_names
        for cell in self.cells:
            subset = cell.subset
            if subset.rater is not None and subset.rater not in known:
                hint = "; 'combined' needs curation.combine: true" if subset.rater == COMBINED else ""
                raise ValueError(
                    f"the subset '{cell.name}': there is no rater '{subset.rater}'; allowed: {', '.join(known)}{hint}"
                )
            if subset.rater is None and len(known) > 1 and strategy_of(subset).rated:
                raise ValueError(f"the subset '{cell.name}' must name a rater; allowed: {', '.join(known)}")

    @property
    def rater_names(self) -> list[str]:
        """The raters whose scores subsets can use, and "combined" if curation combines them."""
        return [rater.name for rater in self.raters] + ([COMBINED] if self.curation.combine else [])

    @property
    def cells(self) -> list[Cell]:
        """The subsets of the run, each with the training on it."""
        return cells(self)

    @property
    def pipeline(self) -> str:
        """Name of the pipeline for these settings."""
        return "data-selection" if self.finetuning is None else "experiment"

    @property
    def scores(self) -> tuple[ScoreName, ...]:
        """The scores that the subsets' strategies need."""
        strategies = [strategy_of(cell.subset) for cell in self.cells]
        needed = {strategy.scored_by for strategy in strategies if strategy.scores}
        if unknown := sorted(needed - {*SCORE_PODS}):
            raise ValueError(f"a strategy needs unknown scores '{unknown[0]}'; known: {', '.join(SCORE_PODS)}")
        return tuple(name for name in SCORE_PODS if name in needed)

    @property
    def results(self) -> Path:
        """Where a local run puts its results."""
        return self.work_dir / "runs" / self.name if self.name else self.work_dir

    @property
    def compiled(self) -> CompileSettings:
        """What is compiled into this run's package."""
        fixed = self.kubeflow.compiled
        sharded = fixed.sharded or any(pods > 1 for pods in self.kubeflow.rating_shards.values())
        scores = tuple(dict.fromkeys((*fixed.scores, *self.scores)))
        trainer = fixed.trainer or self.kubeflow.trainer is not None
        judging = fixed.judging or self.judging is not None
        update = {"scores": scores, "sharded": sharded, "trainer": trainer, "judging": judging}
        for name in OPTIONAL_STEPS:
            update[name] = getattr(fixed, name) or getattr(self, name) is not None
        return fixed.model_copy(update=update)

    def arguments(self, shares: Mapping[str, float] | None = None) -> dict[str, Any]:
        """Return the pipeline's parameters: one JSON value per section, without the defaults.

        `shares` is each payer's share of the budget (`budget.by_payer`); without it there is no budget.
        """
        unused = {*SCORE_PODS} - {*self.scores} | {name for name in OPTIONAL_STEPS if getattr(self, name) is None}
        sections = set(type(self).model_fields) - {
            "work_dir",
            "name",
            "kubeflow",
            "budget",
            "rates",
            "raters",
            *_PLANNED,
            *unused,
        }
        shares = shares or {}
        raters = {"raters": [_given(rater) for rater in self._raters_with(shares)]}
        return {section: _given(getattr(self, section)) for section in sections} | raters | self._planned(shares)

    def _raters_with(self, shares: Mapping[str, float]) -> list[RatingSettings]:
        return [_with_share(rater, shares.get(f"raters.{rater.name}")) for rater in self.raters]

    def _planned(self, shares: Mapping[str, float]) -> dict[str, Any]:
        """Return what differs between cells, as the pipeline's loops take it."""
        subsets = [_given(cell.subset) for cell in self.cells]
        if self.finetuning is None:
            return {"subsets": subsets}
        trained = [_given(cell.finetuning) for cell in self.cells]
        made = [{"subset": one, "finetuning": other} for one, other in zip(subsets, trained, strict=True)]
        if self.judging is not None:
            for cell, given in zip(self.cells, made, strict=True):
                assert cell.finetuning is not None
                match = self.judging.of(cell.finetuning.model)
                given["judging"] = _given(_with_share(match, shares.get(f"judging.{cell.name}")))
        return {
            "cells": made,
            "bases": [_given(base) for base in base_evaluations(self)],
            "evaluation": _given(self.evaluation),
        }

    def cluster_arguments(
        self, outcomes: str = "", shares: Mapping[str, float] | None = None, cells_per_pod: int = 1
    ) -> dict[str, Any]:
        """Return all parameters of the pipeline on a cluster: `arguments` in groups, and those of its pods.

        Args:
            outcomes: a prefix in object storage where the run notes how it ended; if empty, it writes no note.
            shares: each payer's share of the budget.
            cells_per_pod: cells that share the pods of their steps.
        """
        pods = self.kubeflow.arguments() | {"outcomes": outcomes}
        unused = (
            () if self.finetuning else ("evaluation_",) if "influence" in self.scores else ("training_", "evaluation_")
        )
        arguments = grouped(self.arguments(shares), cells_per_pod, together=not self.compiled.sharded)
        arguments |= {name: value for name, value in pods.items() if not name.startswith(unused)}
        if self.compiled.sharded:
            workers = sharding.workers(self._raters_with(shares or {}), self.kubeflow.rating_shards)
            arguments["workers"] = [_given(worker) for worker in workers]
        if self.compiled.trainer and self.finetuning is not None:
            arguments["trainer"] = _given(self.kubeflow.nodes)
        return arguments


def _refuse_names_of_sections(measures: Iterable[str]) -> None:
    """Measures of other packages must not replace a section, and are names of parameters in Kubeflow's pipelines.

    Raises:
        RegistryError: naming the first measure that cannot be a section of its own.
    """
    sections = {*_UpToCuration.model_fields, *RunSettings.__annotations__}
    for name in measures:
        if name in sections or not re.fullmatch("[a-z][a-z0-9_]*", name):
            raise RegistryError(
                f"a measure is called '{name}'",
                allowed="lower case letters, digits, '_', a letter first; not the name of a section of a run, such as "
                "pool or judging",
                action="correct the package that adds it, or uninstall the package",
            )


_refuse_names_of_sections(MEASURES)


def _with_share(settings: Payer, share: float | None) -> Payer:
    return settings if share is None else settings.model_copy(update={"budget_share": share})


def _given(settings: Settings | None) -> dict[str, Any]:
    """Return the settings as JSON values, without the defaults."""
    return {} if settings is None else said(settings)


def load_run(path: Path, overrides: Sequence[str] = ()) -> RunSettings:
    """Read the settings of a run.

    The file may have a section `variables`. Their values replace `${name}` in all other texts of the file, so that a
    path that is used several times is given once, possibly by `--set variables.name=value`.

    Raises:
        SettingsError: when the file is missing or wrong, or a variable is not defined.
    """
    values = with_overrides(load_yaml(path), list(overrides))
    return parse(RunSettings, filled(values, where=str(path)), where=str(path))
