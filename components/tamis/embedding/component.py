"""Kubeflow face of the embedding stage."""

from kfp.dsl import Dataset, Input, Metrics, Output

from tamis.components import component
from tamis.embedding.description import EMBED


@component(EMBED)
def embed(pool: Input[Dataset], settings: dict, embeddings: Output[Dataset], metrics: Output[Metrics]) -> None:
    """Embed every sample of the pool."""
    from tamis.embedding.settings import EmbeddingSettings
    from tamis.embedding.stage import run
    from tamis.kubeflow import execute

    execute(run, EmbeddingSettings, settings, out=embeddings, metrics=metrics, pool=pool.path)
