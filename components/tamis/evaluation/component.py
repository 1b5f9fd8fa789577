"""Kubeflow face of the evaluation stage."""

from kfp.dsl import Dataset, Input, Metrics, Model, Output

from tamis.core.kubeflow import component


@component("evaluation")
def evaluate(settings: dict, evaluation: Output[Dataset], metrics: Output[Metrics], model: Input[Model] = None) -> None:
    """Evaluate a trained model, or the base model if none is given."""
    from tamis.core.kubeflow import execute
    from tamis.evaluation.settings import EvaluationSettings
    from tamis.evaluation.stage import run

    execute(run, EvaluationSettings, settings, out=evaluation, metrics=metrics, model=model.path if model else None)
