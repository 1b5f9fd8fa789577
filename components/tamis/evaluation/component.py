"""The evaluation stage's Kubeflow component."""

from typing import List, Optional  # noqa: UP035  kfp reads these spellings only

from kfp.dsl import Dataset, Input, Metrics, Model, Output

from tamis.components import component
from tamis.evaluation.description import EVALUATE


@component(EVALUATE)
def evaluate(
    settings: dict,
    evaluation: Output[Dataset],
    metrics: Output[Metrics],
    model: Input[Model] = None,
    cells: Optional[List[dict]] = None,  # noqa: UP006,UP045
) -> None:
    """Evaluate trained models, or base models if none are given."""
    from tamis.cells import execute_cells
    from tamis.evaluation.settings import EvaluationSettings
    from tamis.evaluation.stage import run

    models = {"model": model.path if model else None}
    execute_cells(run, EvaluationSettings, settings, cells, out=evaluation, metrics=metrics, of_each=models, apart=True)
