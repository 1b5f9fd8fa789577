"""Kubeflow face of the finetuning stage."""

from kfp.dsl import Dataset, Input, Metrics, Model, Output

from tamis.core.kubeflow import component


@component("training")
def finetune(selection: Input[Dataset], settings: dict, model: Output[Model], metrics: Output[Metrics]) -> None:
    """Train a base model on a subset."""
    from tamis.core.kubeflow import execute_cell
    from tamis.finetuning.settings import FinetuningSettings
    from tamis.finetuning.stage import run

    subset = selection.path
    execute_cell(run, FinetuningSettings, settings, source=subset, out=model, metrics=metrics, selection=subset)
