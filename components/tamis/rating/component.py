"""Kubeflow face of the rating stage."""

from kfp.dsl import Dataset, Input, Metrics, Output

from tamis.core.kubeflow import component


@component("rating")
def rate(pool: Input[Dataset], settings: dict, ratings: Output[Dataset], metrics: Output[Metrics]) -> None:
    """Rate every sample of the pool with one rater, or import the rater's scores."""
    from tamis.core.kubeflow import execute
    from tamis.rating.settings import RatingSettings
    from tamis.rating.stage import run

    execute(run, RatingSettings, settings, out=ratings, metrics=metrics, pool=pool.path)
