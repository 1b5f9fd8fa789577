"""The finetuning stage's Kubeflow components."""

from typing import List, Optional  # noqa: UP035  kfp reads these spellings only

from kfp.dsl import Dataset, Input, Metrics, Model, Output

from tamis.components import component, step
from tamis.finetuning.description import FINETUNE
from tamis.finetuning.settings import FinetuningSettings


@component(FINETUNE)
def finetune(
    selection: Input[Dataset],
    settings: dict,
    model: Output[Model],
    metrics: Output[Metrics],
    cells: Optional[List[dict]] = None,  # noqa: UP006,UP045
) -> None:
    """Train base models on subsets."""
    from tamis.cells import execute_cells
    from tamis.finetuning.settings import FinetuningSettings
    from tamis.finetuning.stage import run

    subsets = {"selection": selection.path}
    execute_cells(run, FinetuningSettings, settings, cells, out=model, metrics=metrics, of_each=subsets, apart=True)


@step("base", FinetuningSettings)
def finetune_on_trainer(
    selection: Input[Dataset],
    settings: dict,
    trainer: dict,
    model: Output[Model],
    metrics: Output[Metrics],
    cells: Optional[List[dict]] = None,  # noqa: UP006,UP045
) -> None:
    """Train base models on subsets in TrainJobs, which this pod creates, watches and deletes."""
    from functools import partial

    from tamis.cells import execute_cells
    from tamis.finetuning.on_trainer import run
    from tamis.finetuning.settings import FinetuningSettings

    stage, subsets = partial(run, trainer=trainer), {"selection": selection.path}
    execute_cells(stage, FinetuningSettings, settings, cells, out=model, metrics=metrics, of_each=subsets)
