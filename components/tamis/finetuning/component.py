"""The finetuning stage's Kubeflow components."""

from kfp.dsl import Dataset, Input, Metrics, Model, Output

from tamis.finetuning.description import FINETUNE
from tamis.finetuning.settings import FinetuningSettings
from tamis.kubeflow import component, step


@component(FINETUNE)
def finetune(selection: Input[Dataset], settings: dict, model: Output[Model], metrics: Output[Metrics]) -> None:
    """Train a base model on a subset."""
    from tamis.finetuning.settings import FinetuningSettings
    from tamis.finetuning.stage import run
    from tamis.kubeflow import execute_cell

    subset = selection.path
    execute_cell(run, FinetuningSettings, settings, source=subset, out=model, metrics=metrics, selection=subset)


@step("base", FinetuningSettings)
def finetune_on_trainer(
    selection: Input[Dataset], settings: dict, trainer: dict, model: Output[Model], metrics: Output[Metrics]
) -> None:
    """Train a base model on a subset in a TrainJob, which this pod creates, watches and deletes."""
    from functools import partial

    from tamis.finetuning.on_trainer import run
    from tamis.finetuning.settings import FinetuningSettings
    from tamis.kubeflow import execute_cell

    stage, subset = partial(run, trainer=trainer), selection.path
    execute_cell(stage, FinetuningSettings, settings, source=subset, out=model, metrics=metrics, selection=subset)
