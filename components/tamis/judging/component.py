"""The Kubeflow component of the judging stage."""

from typing import List, Optional  # noqa: UP035  kfp reads these spellings only

from kfp.dsl import Dataset, Input, Metrics, Model, Output

from tamis.components import component
from tamis.judging.description import JUDGE


@component(JUDGE)
def judge(
    settings: dict,
    judgement: Output[Dataset],
    metrics: Output[Metrics],
    model: Input[Model] = None,
    against: Input[Model] = None,
    cells: Optional[List[dict]] = None,  # noqa: UP006,UP045
) -> None:
    """Compare trained models' answers with an opponent's, by a language model that judges in both orders."""
    from tamis.cells import execute_cells
    from tamis.judging.settings import JudgingSettings
    from tamis.judging.stage import run

    models = {"model": model.path if model else None}
    opponent = against.path if against else None
    execute_cells(
        run,
        JudgingSettings,
        settings,
        cells,
        out=judgement,
        metrics=metrics,
        of_each=models,
        apart=True,
        against=opponent,
    )
