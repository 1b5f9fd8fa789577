"""Kubeflow component of the reporting stage."""

from typing import List  # noqa: UP035  kfp reads typing.List only

from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

from tamis.kubeflow import component
from tamis.reporting.description import REPORT


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
) -> None:
    """Write the report of a run; the page also shows in the Kubeflow UI."""
    import shutil
    from pathlib import Path

    from tamis.core.failures import failure_in
    from tamis.kubeflow import execute
    from tamis.reporting.settings import ReportingSettings
    from tamis.reporting.stage import run

    made = [*selections, *(models or []), *(base_evaluations or []), *(evaluations or []), *(judgements or [])]
    failed = {artifact.path: failure for artifact in made if (failure := failure_in(artifact.path))}

    def whole(artifacts: list) -> list:
        return [artifact.path for artifact in artifacts or [] if artifact.path not in failed]

    execute(
        run,
        ReportingSettings,
        settings,
        out=report,
        metrics=metrics,
        pool=pool.path,
        ratings=[artifact.path for artifact in ratings],
        curation=curation.path,
        selections=whole(selections),
        models=whole(models),
        evaluations=[*whole(base_evaluations), *whole(evaluations)],
        judgements=whole(judgements),
        failed=list({(failure.name, failure.stage): failure for failure in failed.values()}.values()),
    )
    Path(page.path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(report.path) / "report.html", page.path)
