"""The data of a report, read once and passed to every section."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError
from tamis.core.failures import Failure
from tamis.core.steps import Step
from tamis.reporting.experiment import Group, read_groups
from tamis.reporting.judgements import Judgement, read_judgement
from tamis.reporting.numbers import slugs
from tamis.reporting.outcomes import BASE, Evaluations, Subset, is_base, read_evaluations, read_subset
from tamis.reporting.raters import Curation, Ratings, read_curation, read_ratings
from tamis.reporting.samples import Samples, read_samples
from tamis.reporting.settings import ReportingSettings
from tamis.reporting.signals import Signals, read_signals

_JUDGED = "judgement"  # kind of the artifact that judging makes


@dataclass(frozen=True)
class Evidence:
    """The opened artifacts and the data read from them; None or empty for artifacts that were not given.

    `failed` are the cells without a result, `unjudged` those that lack only the judgement.
    """

    settings: ReportingSettings
    pool: Artifact
    samples: Samples
    ratings: list[Ratings]
    curation: Curation | None
    subsets: list[Subset]
    models: list[Artifact]
    evaluations: Evaluations | None
    judgements: list[Judgement]
    signals: Signals | None
    failed: list[Failure]
    unjudged: list[Failure]

    @property
    def artifacts(self) -> list[Artifact]:
        """Every artifact, in the order of the stages."""
        return [
            self.pool,
            *([self.signals.artifact] if self.signals else []),
            *(ratings.artifact for ratings in self.ratings),
            *([self.curation.artifact] if self.curation else []),
            *(subset.artifact for subset in self.subsets),
            *self.models,
            *(self.evaluations.artifacts if self.evaluations else []),
            *(judgement.artifact for judgement in self.judgements),
        ]

    @cached_property
    def groups(self) -> list[Group]:
        """The cells of an experiment, grouped if they differ only in their seeds."""
        return read_groups(self.subsets, self.models, self.evaluations, self.failed)

    @cached_property
    def base_of(self) -> dict[str, str]:
        """For each trained and evaluated model, the name of its base model's evaluation."""
        bases = {cell.name: group.base for group in self.groups for cell in group.cells}
        models = self.evaluations.models if self.evaluations else []
        trained = [model for model in models if not is_base(model) and model not in bases.values()]
        return {model: bases.get(model, BASE) for model in trained}

    @cached_property
    def rater_slugs(self) -> dict[str, str]:
        """Raters' names as parts of anchors and file names."""
        curated = list(self.curation.raters) if self.curation else []
        return slugs(list(dict.fromkeys([*(ratings.rater for ratings in self.ratings), *curated])))

    @cached_property
    def score_range(self) -> tuple[int, int]:
        """The highest rating of class 0, and the lowest rating of the top class."""
        config = self.curation.artifact.manifest.config if self.curation else {}
        return int(config.get("lowest", 4)), int(config.get("highest", 9))

    @cached_property
    def truth(self) -> NDArray[np.int8]:
        """(n,) true score class, -1 if unknown."""
        return self.samples.truth(*self.score_range)


def read_evidence(step: Step[ReportingSettings], failed: list[Failure]) -> Evidence:
    """Read the step's inputs, each of them once.

    Raises:
        InputError: when the inputs do not belong together, or two of a kind have the same name.
    """
    settings, pool = step.settings, step.input("pool")
    samples = read_samples(pool, settings)
    ratings = [read_ratings(artifact, samples) for artifact in step.inputs("ratings")]
    curations, signals = step.inputs("curation"), step.inputs("signals")
    subsets = [read_subset(artifact, samples) for artifact in step.inputs("selections")]
    evaluations = list(step.inputs("evaluations"))
    for kind, names in (("ratings", [r.rater for r in ratings]), ("selections", [s.name for s in subsets])):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"two of the {kind} have the name '{twice}'", action="give each of them once")
    return Evidence(
        settings=settings,
        pool=pool,
        samples=samples,
        ratings=ratings,
        curation=read_curation(curations[0], samples, settings.examples) if curations else None,
        subsets=subsets,
        models=list(step.inputs("models")),
        evaluations=read_evaluations(evaluations) if evaluations else None,
        judgements=[read_judgement(artifact, settings.examples) for artifact in step.inputs("judgements")],
        signals=read_signals(signals[0], samples) if signals else None,
        failed=[failure for failure in failed if failure.stage != _JUDGED],
        unjudged=[failure for failure in failed if failure.stage == _JUDGED],
    )
