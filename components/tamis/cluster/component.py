"""Kubeflow face of a run's end."""

from kfp.dsl import Markdown, Output, PipelineTaskFinalStatus

from tamis.core.kubeflow import component


@component("cpu")
def note_outcome(status: PipelineTaskFinalStatus, outcome: Output[Markdown], outcomes: str = "") -> None:
    """Say how the run ended, whatever happened before; with `outcomes`, also as a file in that folder."""
    from tamis.cluster.outcome import note

    note(status, page=outcome.path, folder=outcomes)
