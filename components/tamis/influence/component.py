"""Kubeflow face of the influence stage."""

from kfp.dsl import Dataset, Input, Metrics, Output

from tamis.core.kubeflow import component
from tamis.influence.description import INFLUENCE


@component(INFLUENCE)
def influence(pool: Input[Dataset], settings: dict, scores: Output[Dataset], metrics: Output[Metrics]) -> None:
    """Score every sample of the pool by its influence on the tasks."""
    from tamis.core.kubeflow import execute_cell
    from tamis.influence.settings import InfluenceSettings
    from tamis.influence.stage import run

    # Subsets of other strategies do without it.
    execute_cell(
        run, InfluenceSettings, settings, source=None, name="less", out=scores, metrics=metrics, pool=pool.path
    )
