"""Kubeflow components of the reporting stage."""

from typing import List  # noqa: UP035  kfp reads typing.List only

from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

from tamis.components import component, step
from tamis.reporting.description import REPORT
from tamis.reporting.settings import ReportingSettings


@component(REPORT)
def report(
    pool: Input[Dataset],
    ratings: Input[List[Dataset]],  # noqa: UP006
    curation: Input[Dataset],
    selections: Input[List[Dataset]],  # noqa: UP006
    settings: dict,
    report: Output[Artifact],
    page: Output[HTML],
    metrics: Output[Metrics],
    models: Input[List[Model]] = None,  # noqa: UP006
    evaluations: Input[List[Artifact]] = None,  # noqa: UP006
    base_evaluations: Input[List[Artifact]] = None,  # noqa: UP006
    judgements: Input[List[Artifact]] = None,  # noqa: UP006
    signals: Input[Dataset] = None,
) -> None:
    """Write the report of a run; the page also shows in the Kubeflow UI."""
    from tamis.reporting.pod import write

    write(
        settings,
        out=report,
        page=page,
        metrics=metrics,
        pool=pool,
        ratings=ratings,
        curation=curation,
        selections=selections,
        models=models or [],
        evaluations=[*(base_evaluations or []), *(evaluations or [])],
        judgements=judgements or [],
        signals=signals,
    )


@step("base", ReportingSettings, name="report")
def report_on_subsets(
    pool: Input[Dataset],
    ratings: Input[List[Dataset]],  # noqa: UP006
    curation: Input[Dataset],
    selection: Input[Dataset],
    settings: dict,
    report: Output[Artifact],
    page: Output[HTML],
    metrics: Output[Metrics],
    signals: Input[Dataset] = None,
) -> None:
    """Write the report of a run whose subsets one step has selected; the page also shows in the Kubeflow UI."""
    from tamis.reporting.pod import write

    write(
        settings,
        out=report,
        page=page,
        metrics=metrics,
        pool=pool,
        ratings=ratings,
        curation=curation,
        selections=[selection],
        signals=signals,
    )
