"""The scoring stage's Kubeflow component."""

from kfp.dsl import Dataset, Input, Metrics, Output

from tamis.components import component
from tamis.scoring.description import SCORE


@component(SCORE)
def score(
    pool: Input[Dataset], settings: dict, scores: Output[Dataset], metrics: Output[Metrics], attempt: int = 0
) -> None:
    """Score every sample of the pool by token probabilities.

    `attempt` only lets Kubeflow try again what has failed in an earlier run.
    """
    from tamis.kubeflow import execute_cell
    from tamis.scoring.settings import ScoringSettings
    from tamis.scoring.stage import run

    # If this measure fails, subsets that rank by other scores can still be made.
    name = settings.get("measure", {}).get("kind", "perplexity")
    execute_cell(run, ScoringSettings, settings, source=None, name=name, out=scores, metrics=metrics, pool=pool.path)
