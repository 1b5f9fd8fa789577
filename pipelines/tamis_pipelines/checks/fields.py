"""The plain values in a run's settings that the run uses, each with its dotted name and what it refers to."""

from __future__ import annotations

from collections.abc import Iterator

from tamis.core.references import Setting, To, walk
from tamis_pipelines.pods import SCORE_PODS
from tamis_pipelines.settings import RunSettings


def fields_of(settings: RunSettings) -> Iterator[Setting]:
    """Yield every plain value that a run of `settings` uses, on a cluster or on this machine."""
    unused = {*SCORE_PODS} - {*settings.scores}
    overruled = {"evaluation.model"}  # a run evaluates the base models that it trains
    if settings.experiment is not None and settings.experiment.models:
        overruled.add("finetuning.model")
    for field in walk(settings):
        if field.where.partition(".")[0] not in unused and field.where not in overruled:
            yield field


def referring(settings: RunSettings, *kinds: To) -> Iterator[tuple[str, str]]:
    """Yield name and value of settings that refer to something of these kinds, for a run on this machine."""
    for field in fields_of(settings):
        on_cluster = field.where.startswith("kubeflow.")
        if field.reference is not None and field.reference.to in kinds and field.value is not None and not on_cluster:
            yield field.where, str(field.value)
