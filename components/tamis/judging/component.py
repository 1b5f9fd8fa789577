"""The Kubeflow component of the judging stage."""

from kfp.dsl import Dataset, Input, Metrics, Model, Output

from tamis.judging.description import JUDGE
from tamis.kubeflow import component


@component(JUDGE)
def judge(
    settings: dict,
    judgement: Output[Dataset],
    metrics: Output[Metrics],
    model: Input[Model] = None,
    against: Input[Model] = None,
) -> None:
    """Compare a trained model's answers with an opponent's, by a language model that judges in both orders."""
    from tamis.judging.settings import JudgingSettings
    from tamis.judging.stage import run
    from tamis.kubeflow import execute_cell

    paths = {"model": model.path if model else None, "against": against.path if against else None}
    execute_cell(run, JudgingSettings, settings, source=paths["model"], out=judgement, metrics=metrics, **paths)
