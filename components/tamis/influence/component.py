"""Kubeflow face of the influence stage."""

from kfp.dsl import Dataset, Input, Metrics, Output

from tamis.core.kubeflow import component
from tamis.influence.description import INFLUENCE


@component(INFLUENCE)
def influence(pool: Input[Dataset], settings: dict, scores: Output[Dataset], metrics: Output[Metrics]) -> None:
    """Score every sample of the pool by its influence on the tasks."""
    from tamis.core.kubeflow import execute
    from tamis.influence.settings import InfluenceSettings
    from tamis.influence.stage import run

    execute(run, InfluenceSettings, settings, out=scores, metrics=metrics, pool=pool.path)
