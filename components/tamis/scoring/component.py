"""Kubeflow face of the scoring stage."""

from kfp.dsl import Dataset, Input, Metrics, Output

from tamis.kubeflow import component
from tamis.scoring.description import SCORE


@component(SCORE)
def score(pool: Input[Dataset], settings: dict, scores: Output[Dataset], metrics: Output[Metrics]) -> None:
    """Score every sample of the pool by token probabilities."""
    from tamis.kubeflow import execute_cell
    from tamis.scoring.settings import ScoringSettings
    from tamis.scoring.stage import run

    name = settings.get("measure", {}).get("kind", "perplexity")  # the subsets that rank by others do without it
    execute_cell(run, ScoringSettings, settings, source=None, name=name, out=scores, metrics=metrics, pool=pool.path)
