"""The Kubeflow components of the rating stage."""

from typing import List, Optional  # noqa: UP035  kfp reads these spellings only

from kfp.dsl import Dataset, Input, Metrics, Output

from tamis.components import component, step
from tamis.rating.description import RATE
from tamis.rating.settings import RatingSettings


@component(RATE)
def rate(
    pool: Input[Dataset],
    settings: dict,
    ratings: Output[Dataset],
    metrics: Output[Metrics],
    raters: Optional[List[dict]] = None,  # noqa: UP006,UP045
) -> None:
    """Rate every sample of the pool with one rater, or several one after another, or import their scores."""
    from tamis.cells import execute_each
    from tamis.kubeflow import execute
    from tamis.rating.settings import RatingSettings
    from tamis.rating.stage import run

    if raters is None:
        execute(run, RatingSettings, settings, out=ratings, metrics=metrics, pool=pool.path)
    else:
        execute_each(run, RatingSettings, raters, out=ratings, metrics=metrics, pool=pool.path)


@step("base", RatingSettings)
def gather_ratings(
    ratings: Input[List[Dataset]],  # noqa: UP006
    parts: Output[Dataset],
    metrics: Output[Metrics],
) -> None:
    """Put what all pods have rated into one artifact, which a loop over raters can take."""
    from tamis.kubeflow import execute
    from tamis.rating.merging import gather
    from tamis.rating.settings import MergeSettings

    execute(gather, MergeSettings, {}, out=parts, metrics=metrics, ratings=[each.path for each in ratings])


@step("base", RatingSettings)
def merge_ratings(
    pool: Input[Dataset], parts: Input[Dataset], settings: dict, ratings: Output[Dataset], metrics: Output[Metrics]
) -> None:
    """Make of what the pods of one rater have rated the ratings that one pod would have made."""
    from tamis.kubeflow import execute
    from tamis.rating.merging import merge_one
    from tamis.rating.settings import RatingSettings

    execute(merge_one, RatingSettings, settings, out=ratings, metrics=metrics, pool=pool.path, parts=parts.path)
