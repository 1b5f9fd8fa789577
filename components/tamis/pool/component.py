"""Kubeflow face of the pool stage."""

from kfp.dsl import Dataset, Metrics, Output

from tamis.components import component
from tamis.pool.description import POOL


@component(POOL)
def pool(settings: dict, pool: Output[Dataset], metrics: Output[Metrics]) -> None:
    """Assemble the pool out of its sources."""
    from tamis.kubeflow import execute
    from tamis.pool.settings import PoolSettings
    from tamis.pool.stage import run

    execute(run, PoolSettings, settings, out=pool, metrics=metrics)
