"""Kubeflow face of the finetuning stage."""

from kfp.dsl import Dataset, Input, Metrics, Model, Output

from tamis.core.kubeflow import component, step
from tamis.finetuning.description import FINETUNE
from tamis.finetuning.settings import FinetuningSettings


@component(FINETUNE)
def finetune(selection: Input[Dataset], settings: dict, model: Output[Model], metrics: Output[Metrics]) -> None:
    """Train a base model on a subset."""
    from tamis.core.kubeflow import execute_cell
    from tamis.finetuning.settings import FinetuningSettings
    from tamis.finetuning.stage import run

    subset = selection.path
    execute_cell(run, FinetuningSettings, settings, source=subset, out=model, metrics=metrics, selection=subset)


@step("base", FinetuningSettings)
def finetune_on_trainer(
    selection: Input[Dataset], settings: dict, trainer: dict, model: Output[Model], metrics: Output[Metrics]
) -> None:
    """Train a base model on a subset by a TrainJob, which this pod makes, follows and removes."""
    from functools import partial

    from tamis.core.kubeflow import execute_cell
    from tamis.finetuning.on_trainer import run
    from tamis.finetuning.settings import FinetuningSettings

    stage, subset = partial(run, trainer=trainer), selection.path
    execute_cell(stage, FinetuningSettings, settings, source=subset, out=model, metrics=metrics, selection=subset)
