"""Kubeflow face of the neighbors stage."""

from kfp.dsl import Dataset, Input, Metrics, Output

from tamis.components import component
from tamis.neighbors.description import NEIGHBORS


@component(NEIGHBORS)
def find_neighbors(
    embeddings: Input[Dataset], settings: dict, neighbors: Output[Dataset], metrics: Output[Metrics]
) -> None:
    """Find the nearest neighbours of every sample."""
    from tamis.kubeflow import execute
    from tamis.neighbors.settings import NeighborsSettings
    from tamis.neighbors.stage import run

    execute(run, NeighborsSettings, settings, out=neighbors, metrics=metrics, embeddings=embeddings.path)
