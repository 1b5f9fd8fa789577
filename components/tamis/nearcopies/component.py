"""Kubeflow face of the near-copies stage."""

from kfp.dsl import Dataset, Input, Metrics, Output

from tamis.components import component
from tamis.nearcopies.description import NEAR_COPIES


@component(NEAR_COPIES)
def drop_near_copies(samples: Input[Dataset], settings: dict, pool: Output[Dataset], metrics: Output[Metrics]) -> None:
    """Drop near-copies from the pool."""
    from tamis.kubeflow import execute
    from tamis.nearcopies.settings import NearCopiesSettings
    from tamis.nearcopies.stage import run

    execute(run, NearCopiesSettings, settings, out=pool, metrics=metrics, samples=samples.path)
