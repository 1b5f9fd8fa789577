"""Kubeflow face of the selection stage."""

from kfp.dsl import Dataset, Input, Metrics, Output

from tamis.core.kubeflow import component
from tamis.selection.settings import SelectionSettings


@component("cpu", SelectionSettings)
def select(
    pool: Input[Dataset],
    settings: dict,
    selection: Output[Dataset],
    metrics: Output[Metrics],
    curation: Input[Dataset] = None,
    neighbors: Input[Dataset] = None,
    embeddings: Input[Dataset] = None,
    perplexity: Input[Dataset] = None,
    deita: Input[Dataset] = None,
    influence: Input[Dataset] = None,
) -> None:
    """Choose a subset of the pool."""
    from tamis.core.kubeflow import execute_cell
    from tamis.selection.settings import SelectionSettings
    from tamis.selection.stage import run

    execute_cell(
        run,
        SelectionSettings,
        settings,
        source=None,
        out=selection,
        metrics=metrics,
        pool=pool.path,
        curation=curation.path if curation else None,
        neighbors=neighbors.path if neighbors else None,
        embeddings=embeddings.path if embeddings else None,
        scores=[given.path for given in (perplexity, deita, influence) if given],
    )
