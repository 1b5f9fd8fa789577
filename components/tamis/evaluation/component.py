"""The evaluation stage's Kubeflow component."""

from kfp.dsl import Dataset, Input, Metrics, Model, Output

from tamis.evaluation.description import EVALUATE
from tamis.kubeflow import component


@component(EVALUATE)
def evaluate(settings: dict, evaluation: Output[Dataset], metrics: Output[Metrics], model: Input[Model] = None) -> None:
    """Evaluate a trained model, or the base model if none is given."""
    from tamis.evaluation.settings import EvaluationSettings
    from tamis.evaluation.stage import run
    from tamis.kubeflow import execute_cell

    trained = model.path if model else None
    execute_cell(run, EvaluationSettings, settings, source=trained, out=evaluation, metrics=metrics, model=trained)
