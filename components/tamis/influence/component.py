"""The influence stage's Kubeflow component."""

from kfp.dsl import Dataset, Input, Metrics, Output

from tamis.components import component
from tamis.influence.description import INFLUENCE


@component(INFLUENCE)
def influence(
    pool: Input[Dataset], settings: dict, scores: Output[Dataset], metrics: Output[Metrics], attempt: int = 0
) -> None:
    """Score every sample of the pool by its influence on the tasks.

    `attempt` only lets Kubeflow try again what has failed in an earlier run.
    """
    from tamis.influence.settings import InfluenceSettings
    from tamis.influence.stage import run
    from tamis.kubeflow import execute_cell

    # If it fails, subsets of other strategies can still be made.
    execute_cell(
        run, InfluenceSettings, settings, source=None, name="less", out=scores, metrics=metrics, pool=pool.path
    )
