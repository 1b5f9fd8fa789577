"""Kubeflow component of the curation stage."""

from typing import List  # noqa: UP035  (kfp reads this spelling only)

from kfp.dsl import Dataset, Input, Metrics, Output

from tamis.components import component
from tamis.curation.description import CURATE


@component(CURATE)
def curate(
    ratings: Input[List[Dataset]],  # noqa: UP006
    neighbors: Input[Dataset],
    settings: dict,
    curation: Output[Dataset],
    metrics: Output[Metrics],
    pool: Input[Dataset] = None,
    embeddings: Input[Dataset] = None,
) -> None:
    """Find and correct the raters' errors."""
    from tamis.cells import parts_of
    from tamis.curation.settings import CurationSettings
    from tamis.curation.stage import run
    from tamis.kubeflow import execute

    execute(
        run,
        CurationSettings,
        settings,
        out=curation,
        metrics=metrics,
        ratings=parts_of(ratings),
        neighbors=neighbors.path,
        pool=pool.path if pool else None,
        embeddings=embeddings.path if embeddings else None,
    )
