"""What the components of this stage do in their pods."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kfp import dsl

from tamis.cells import parts_of
from tamis.core.failures import failure_in
from tamis.kubeflow import execute
from tamis.reporting.settings import ReportingSettings
from tamis.reporting.stage import run


def write(
    settings: dict[str, Any],
    *,
    out: dsl.Artifact,
    page: dsl.Artifact,
    metrics: dsl.Metrics,
    pool: dsl.Artifact,
    ratings: Sequence[dsl.Artifact],
    curation: dsl.Artifact,
    signals: dsl.Artifact | None = None,
    **of_cells: Sequence[dsl.Artifact],
) -> None:
    """Write the report to `out` and its page to `page`; failed cells among `of_cells` are listed with their reasons.

    Raises:
        SystemExit: when it cannot be written.
    """
    places = {name: parts_of(artifacts) for name, artifacts in of_cells.items()}
    failed = {place: failure for each in places.values() for place in each if (failure := failure_in(place))}
    whole = {name: [place for place in each if place not in failed] for name, each in places.items()}
    execute(
        run,
        ReportingSettings,
        settings,
        out=out,
        metrics=metrics,
        pool=pool.path,
        ratings=parts_of(ratings),
        curation=curation.path,
        signals=signals.path if signals else None,
        failed=list({(failure.name, failure.stage): failure for failure in failed.values()}.values()),
        **whole,
    )
    Path(page.path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(out.path) / "report.html", page.path)
