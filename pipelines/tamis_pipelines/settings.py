"""Settings of a whole run: one section a stage, as in `examples/`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field, SerializeAsAny, ValidationInfo, create_model, field_validator, model_validator

from tamis.core.errors import SettingsError
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
from tamis.neighbors.settings import NeighborsSettings
from tamis.pool.settings import PoolSettings
from tamis.rating.settings import RatingSettings
from tamis.reporting.settings import ReportingSettings
from tamis.scoring.measures import MEASURES
from tamis.scoring.settings import ScoringSettings
from tamis.selection.settings import SelectionSettings, strategy_of
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
from tamis_pipelines.pods import SCORE_PODS, CompileSettings, KubeflowSettings, ScoreName
from tamis_pipelines.rates import RatesSettings

Payer = TypeVar("Payer", RatingSettings, JudgingSettings)
# Sections that reach the pipelines by cell.
_PLANNED = {"subsets", "experiment", "finetuning", "evaluation", "judging"}


class _UpToCuration(Settings):
    """The sections of the steps up to curation."""

    work_dir: WorkFolder = Field(description="folder for results and finished steps of local runs")
    name: str = Field(
        "",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$",
        max_length=100,
        description="results of a local run lie in work_dir/runs/NAME, beside those of others; left out: in work_dir",
    )
    pool: PoolSettings = Field(description="where the samples come from")
    raters: list[SerializeAsAny[RatingSettings]] = Field(
        min_length=1, description="one or more; each rates the whole pool, or a `sample`"
    )
    embedding: EmbeddingSettings = Field(EmbeddingSettings(), description="one vector a sample")
    neighbors: NeighborsSettings = Field(NeighborsSettings(), description="every sample's nearest neighbours")
    curation: CurationSettings = Field(CurationSettings(), description="how the raters' errors are estimated")


if TYPE_CHECKING:
    _UpToScores = _UpToCuration
else:  # a section for each measure
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
    """What `tamis run` and the Kubeflow pipelines take.

    Without `finetuning` the run ends with the subsets and their report (pipeline `data-selection`); with it, a model is
    finetuned and evaluated per subset, beside the base model (pipeline `experiment`). `subsets` lists them one by one,
    `experiment` by strategies, raters, sizes, seeds and base models.
    """

    influence: InfluenceSettings | None = Field(None, description="scores for the strategy less, which needs it")
    subsets: list[SelectionSettings] = Field([], description="selections to make, one by one")
    experiment: ExperimentSettings | None = Field(None, description="selections and trainings to make, as a grid")
    finetuning: FinetuningSettings | None = Field(None, description="left out: no model is trained")
    evaluation: EvaluationSettings | None = Field(None, description="goes with finetuning")
    judging: CellsJudging | None = Field(
        None, description="with finetuning: the model of every cell is judged against an opponent; left out: none is"
    )
    report: ReportingSettings = Field(ReportingSettings(), description="title, notes and truth of the report")
    budget: BudgetSettings | None = Field(None, description="most money of the whole run; left out: no such limit")
    rates: RatesSettings = Field(
        RatesSettings(), description="what `tamis plan` calculates with, and by which `budget` is shared out"
    )
    kubeflow: KubeflowSettings = Field(KubeflowSettings(), description="pods on a cluster; local runs ignore it")

    @field_validator("work_dir", mode="before")
    @classmethod
    def _works_on_this_machine(cls, folder: Any) -> Any:
        if isinstance(folder, str) and is_remote(folder):  # as a Path it would be a folder called "s3:"
            raise ValueError(
                "work_dir is a folder of this machine; give a path on it (a rater's `store` may be in object storage)"
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
            raise ValueError("nothing is selected: list subsets, or give experiment strategies and sizes")
        check_grid(self)
        for what, named in (("raters", self.raters), ("subsets", self.cells)):
            names = Counter(item.name for item in named)
            twice = [name for name, count in names.items() if count > 1]
            if twice:
                raise ValueError(f"two {what} are called '{twice[0]}'; give each a name of its own")
        self._raters_are_known()
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
            raise ValueError("the strategy less needs the section influence, with tasks that training shall help with")
        if self.neighbors.shard != "1/1":
            raise ValueError("neighbors.shard: a run searches for all samples; shards are for `tamis neighbors`")
        if (self.finetuning is None) != (self.evaluation is None):
            raise ValueError("finetuning and evaluation go together: give both sections, or neither")
        self._the_base_is_what_is_trained()
        self._the_graph_is_large_enough()
        check_names(self)
        if self.judging is not None:
            if self.finetuning is None:
                raise ValueError("judging goes with finetuning: without it there is no model to judge")
            for base in base_models(self):
                self.judging.of(base.model)
        return self

    def _raters_are_different(self) -> None:
        """No two raters have the same answers, which curation would take for agreement."""
        for place, rater in enumerate(self.raters):
            for other in self.raters[:place]:
                if rater.answers_known_by() == other.answers_known_by():
                    raise ValueError(
                        f"the raters '{other.name}' and '{rater.name}' have the same answers: they differ in nothing "
                        "that answers depend on (name, limits, prices and `sample` are no part of it, and `seed` is "
                        "one only with a temperature above 0), and curation would take this for perfect agreement; "
                        "leave one out, or give it another model or prompt, or both a temperature above 0 and "
                        "different seeds"
                    )

    def _the_graph_is_large_enough(self) -> None:
        """The neighbour graph has as many neighbours as those who use it want; said before it is made."""
        wanted = {f"subset '{cell.name}': k": strategy_of(cell.subset).neighbors for cell in self.cells}
        if self.curation.diversity == "paper":
            wanted["curation.diversity_neighbors"] = self.curation.diversity_neighbors
        for where, k in wanted.items():
            if k > self.neighbors.k:
                raise ValueError(
                    f"{where} is {k}, neighbors.k {self.neighbors.k}; raise neighbors.k, or lower the other"
                )

    def _the_base_is_what_is_trained(self) -> None:
        if self.evaluation is None or self.finetuning is None or (self.experiment and self.experiment.models):
            return
        for name in self.evaluation.model_fields_set & {"model", "revision"}:
            asked, trained = getattr(self.evaluation, name), getattr(self.finetuning, name)
            if asked != trained:
                raise ValueError(
                    f"evaluation.{name} is {asked}, but finetuning.{name} is {trained}: gains are measured against the "
                    f"model that is trained; leave evaluation.{name} out"
                )

    def _nodes_fit(self) -> None:
        nodes = self.kubeflow.nodes
        if nodes is None:
            return
        if nodes.place is None or self.finetuning is None:
            raise ValueError(
                "kubeflow.trainer needs finetuning, and place, a prefix in object storage for what the pipeline and "
                "its TrainJobs hand each other"
            )
        try:
            check_nodes(self.finetuning, nodes)
        except SettingsError as error:
            raise ValueError(f"kubeflow.trainer: {error}") from None

    def _what_is_compiled_in_is_used(self) -> None:
        """A step that the package has, and the run has no settings for, would fail after the raters were paid."""
        fixed = self.kubeflow.compiled
        idle = [f"scores: {name}" for name in fixed.scores if name not in self.scores]
        if self.finetuning is not None:
            used_by = {"judging": self.judging, "trainer": self.kubeflow.trainer}
            idle += [step for step, section in used_by.items() if getattr(fixed, step) and section is None]
        if idle:
            raise ValueError(
                f"kubeflow.compiled.{idle[0]}: nothing in these settings uses that step; leave it out, for what a run "
                "uses is compiled in by itself, or give what uses it: a strategy, judging, or kubeflow.trainer"
            )

    def _raters_are_known(self) -> None:
        known = self.rater_names
        for cell in self.cells:
            subset = cell.subset
            if subset.rater is not None and subset.rater not in known:
                hint = "; 'combined' needs curation.combine: true" if subset.rater == COMBINED else ""
                raise ValueError(
                    f"the subset '{cell.name}': no rater '{subset.rater}'; allowed: {', '.join(known)}{hint}"
                )
            if subset.rater is None and len(known) > 1 and strategy_of(subset).rated:
                raise ValueError(f"the subset '{cell.name}' needs a rater; allowed: {', '.join(known)}")

    @property
    def rater_names(self) -> list[str]:
        """Whose scores a subset can be made by: the raters, and all together where curation combines them."""
        return [rater.name for rater in self.raters] + ([COMBINED] if self.curation.combine else [])

    @property
    def cells(self) -> list[Cell]:
        """The subsets of the run, each with the training on it."""
        return cells(self)

    @property
    def pipeline(self) -> str:
        """Name of the pipeline that these settings ask for."""
        return "data-selection" if self.finetuning is None else "experiment"

    @property
    def scores(self) -> tuple[ScoreName, ...]:
        """The steps that score samples for the strategies of the subsets."""
        strategies = [strategy_of(cell.subset) for cell in self.cells]
        needed = {strategy.scored_by for strategy in strategies if strategy.scores}
        if unknown := sorted(needed - {*SCORE_PODS}):
            raise ValueError(f"a strategy ranks by scores called {unknown[0]}; there are: {', '.join(SCORE_PODS)}")
        return tuple(name for name in SCORE_PODS if name in needed)

    @property
    def results(self) -> Path:
        """Where a local run puts its results."""
        return self.work_dir / "runs" / self.name if self.name else self.work_dir

    @property
    def compiled(self) -> CompileSettings:
        """What is fixed in the package of this run."""
        fixed = self.kubeflow.compiled
        sharded = fixed.sharded or any(pods > 1 for pods in self.kubeflow.rating_shards.values())
        scores = tuple(dict.fromkeys((*fixed.scores, *self.scores)))
        trainer = fixed.trainer or self.kubeflow.trainer is not None
        judging = fixed.judging or self.judging is not None
        update = {"scores": scores, "sharded": sharded, "trainer": trainer, "judging": judging}
        return fixed.model_copy(update=update)

    def arguments(self, shares: Mapping[str, float] | None = None) -> dict[str, Any]:
        """The pipeline's parameters: one JSON value per section, with what was set and without the defaults.

        `shares` is each payer's money of the budget (`budget.by_payer`); without it, they are as if there was none.
        """
        unused = {*SCORE_PODS} - {*self.scores}
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
        """What is made by cell, as the pipeline's loops take it."""
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

    def cluster_arguments(self, outcomes: str = "", shares: Mapping[str, float] | None = None) -> dict[str, Any]:
        """All parameters of the pipeline on a cluster: `arguments`, and those of its pods.

        `outcomes` is a prefix in object storage where the run notes how it ended; nowhere if empty.
        """
        pods = self.kubeflow.arguments() | {"outcomes": outcomes}
        unused = (
            () if self.finetuning else ("evaluation_",) if "influence" in self.scores else ("training_", "evaluation_")
        )
        arguments = self.arguments(shares) | {
            name: value for name, value in pods.items() if not name.startswith(unused)
        }
        if self.compiled.sharded:
            workers = sharding.workers(self._raters_with(shares or {}), self.kubeflow.rating_shards)
            arguments["workers"] = [_given(worker) for worker in workers]
        if self.compiled.trainer and self.finetuning is not None:
            arguments["trainer"] = _given(self.kubeflow.nodes)
        return arguments


def _with_share(settings: Payer, share: float | None) -> Payer:
    return settings if share is None else settings.model_copy(update={"budget_share": share})


def _given(settings: Settings | None) -> dict[str, Any]:
    """What was set, without the defaults, as JSON values."""
    return {} if settings is None else said(settings)


def load_run(path: Path, overrides: Sequence[str] = ()) -> RunSettings:
    """Read the settings of a run.

    The file may have a section `variables`, whose values stand in for `${name}` in any other text of the file, so that
    a path used in several places is given once, also by `--set variables.name=value`.

    Raises:
        SettingsError: when the file is missing or wrong, or a variable is not defined.
    """
    values = with_overrides(load_yaml(path), list(overrides))
    return parse(RunSettings, filled(values, where=str(path)), where=str(path))
