"""The cells of an experiment, grouped over seeds, with their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from tamis.core.artifacts import Artifact
from tamis.core.failures import Failure
from tamis.core.settings import hash_of
from tamis.reporting.outcomes import BASE, Evaluations, Subset

_OWN = {"name", "seed"}  # settings in which the cells of a group differ


@dataclass(frozen=True)
class ExperimentCell:
    """One subset with one training.

    Attributes:
        name: name of its subset, its model and its scores.
        seed: seed of its training, or of its selection if nothing is trained.
        scores: value of each task that has one.
        failure: why it has no result; None if it has one.
    """

    name: str
    seed: int | None
    scores: dict[str, float]
    failure: Failure | None

    def mean(self, tasks: Sequence[str]) -> float | None:
        """Unweighted mean over `tasks`; None when one is missing."""
        return fmean(self.scores[task] for task in tasks) if tasks and {*tasks} <= {*self.scores} else None


@dataclass(frozen=True)
class Spread:
    """A mean over seeds and, for two seeds or more, their standard deviation (with n - 1)."""

    mean: float
    deviation: float | None
    seeds: int


@dataclass(frozen=True)
class Group:
    """Cells that differ only in their seeds.

    Attributes:
        label: strategy with its variant, and with a cell's name if two groups would have the same label.
        variant: "published", "ds2-paper", or "by mean" if samples are ranked by posterior means.
        rater: the rater whose scores are used, or empty.
        size: samples in the subset; None if the size is a share of the pool and no subset was made.
        model: the base model, or empty if nothing is trained.
        base: name of the evaluation of the base model.
    """

    label: str
    strategy: str
    variant: str
    rater: str
    size: int | None
    model: str
    base: str
    cells: list[ExperimentCell]

    def value(self, task: str) -> Spread | None:
        """Mean over the seeds that have a value on `task`."""
        return _spread([cell.scores[task] for cell in self.cells if task in cell.scores])

    def mean(self, tasks: Sequence[str]) -> Spread | None:
        """Mean over the seeds of the mean over all `tasks`; seeds that lack a task are left out."""
        return _spread([mean for cell in self.cells if (mean := cell.mean(tasks)) is not None])


def _spread(values: list[float]) -> Spread | None:
    if not values:
        return None
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def read_groups(
    subsets: Sequence[Subset], models: Sequence[Artifact], evaluations: Evaluations | None, failed: Sequence[Failure]
) -> list[Group]:
    """The cells of a run in groups, in the given order; none if nothing was trained or failed.

    A cell is a model, or a failure of anything but a base model. Its settings come from the manifests of its subset and
    its model, or from its failure if one of these was not made.
    """
    subset_of = {subset.name: subset for subset in subsets}
    trained = {artifact.name: artifact.manifest.config for artifact in models}
    weights = {artifact.name: artifact.manifest.models.get("base") for artifact in models}
    failures = {failure.name: failure for failure in failed if failure.settings.keys() & {"selection", "model"}}
    failures |= {failure.name: failure for failure in failed if failure.name in trained}
    names = [name for name in subset_of if name in trained or name in failures]
    names += [name for name in [*trained, *failures] if name not in names]
    groups: dict[str, Group] = {}
    for name in dict.fromkeys(names):
        subset, failure = subset_of.get(name), failures.get(name)
        known = failure.settings if failure else {}
        chosen = subset.artifact.manifest.config if subset else known.get("selection", {})
        training = trained.get(name) or known.get("model", {})
        key = hash_of([_shared(chosen), _shared(training)])
        if key not in groups:
            base = _base_of(str(training.get("model") or ""), weights.get(name), evaluations)
            groups[key] = _group(name, chosen, training, subset, base)
        seed = training.get("seed", chosen.get("seed"))
        groups[key].cells.append(ExperimentCell(name, seed, _values(evaluations, name), failure))
    return _with_unique_labels(list(groups.values()))


def _shared(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in _OWN}


def _group(
    name: str,
    chosen: dict[str, Any],
    training: dict[str, Any],
    subset: Subset | None,
    base: str,
) -> Group:
    strategy, variant = str(chosen.get("strategy") or name), str(chosen.get("variant") or "published")
    if chosen.get("rank_by") == "mean":
        variant = "by mean"
    facts = subset.artifact.manifest.facts if subset else {}
    asked = chosen.get("size")
    size = int(asked) if asked and asked >= 1 else len(subset.positions) if subset else None
    model = str(training.get("model") or "")
    label = strategy if variant == "published" else f"{strategy} ({variant})"
    rater = str(chosen.get("rater") or facts.get("rater") or "")
    return Group(label, strategy, variant, rater, size, model, base, [])


def _base_of(model: str, weights: str | None, evaluations: Evaluations | None) -> str:
    """Name of the evaluation of the untrained `model`, found by name or by `weights` (its hash); "" for none."""
    for artifact in evaluations.untrained if evaluations else []:
        found = artifact.manifest
        if (model and found.config.get("model") == model) or (weights and found.models.get("evaluated") == weights):
            return artifact.name
    return "" if model else BASE


def _values(evaluations: Evaluations | None, name: str) -> dict[str, float]:
    if evaluations is None:
        return {}
    scores = ((task, evaluations.scores.get((name, task))) for task in evaluations.tasks)
    return {task: score.value for task, score in scores if score is not None and score.value is not None}


def _with_unique_labels(groups: list[Group]) -> list[Group]:
    """The groups; labels that would be the same also have the name of the first cell."""

    def shown(group: Group) -> tuple[object, ...]:
        return group.label, group.rater, group.size, group.model

    alike = [shown(group) for group in groups]
    return [
        group
        if alike.count(shown(group)) == 1
        else Group(**vars(group) | {"label": f"{group.label}, {group.cells[0].name}"})
        for group in groups
    ]
