"""Kubeflow face of the reporting stage."""

from typing import List  # noqa: UP035  kfp reads typing.List only

from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

from tamis.core.kubeflow import component


@component("cpu")
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
    base_evaluation: Input[Artifact] = None,
) -> None:
    """Write the report of a run; the page also shows in the Kubeflow UI."""
    import shutil
    from pathlib import Path

    from tamis.core.kubeflow import execute, failure_in
    from tamis.reporting.settings import ReportingSettings
    from tamis.reporting.stage import run

    evaluated = [artifact.path for artifact in [*([base_evaluation] if base_evaluation else []), *(evaluations or [])]]
    failed = [failure for path in evaluated if (failure := failure_in(path))]
    execute(
        run,
        ReportingSettings,
        settings,
        out=report,
        metrics=metrics,
        pool=pool.path,
        ratings=[artifact.path for artifact in ratings],
        curation=curation.path,
        selections=[artifact.path for artifact in selections],
        models=[artifact.path for artifact in models or [] if not failure_in(artifact.path)],
        evaluations=[path for path in evaluated if not failure_in(path)],
        failed={failure.name: f"{failure.stage}: {failure.reason}" for failure in failed},
    )
    Path(page.path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(report.path) / "report.html", page.path)
