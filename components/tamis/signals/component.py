"""Kubeflow component of the stage `describe`."""

from kfp.dsl import Dataset, Input, Metrics, Output

from tamis.components import component
from tamis.signals.description import DESCRIBE


@component(DESCRIBE)
def describe(pool: Input[Dataset], settings: dict, signals: Output[Dataset], metrics: Output[Metrics]) -> None:
    """Describe every sample of the pool without a model."""
    from tamis.kubeflow import execute
    from tamis.signals.settings import DescribeSettings
    from tamis.signals.stage import run

    execute(run, DescribeSettings, settings, out=signals, metrics=metrics, pool=pool.path)
