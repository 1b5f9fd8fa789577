"""Kubeflow face of the evaluation stage."""

from kfp.dsl import Dataset, Input, Metrics, Model, Output

from tamis.core.kubeflow import component
from tamis.evaluation.description import EVALUATE


@component(EVALUATE)
def evaluate(settings: dict, evaluation: Output[Dataset], metrics: Output[Metrics], model: Input[Model] = None) -> None:
    """Evaluate a trained model, or the base model if none is given."""
    from tamis.core.kubeflow import execute_cell
    from tamis.evaluation.settings import EvaluationSettings
    from tamis.evaluation.stage import run

    trained = model.path if model else None
    execute_cell(run, EvaluationSettings, settings, source=trained, out=evaluation, metrics=metrics, model=trained)
