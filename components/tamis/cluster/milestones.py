"""The first and the last step of a run on Kubeflow leave their marks: the run has begun, and everything is done."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

from tamis.core.artifacts import Artifact
from tamis.core.errors import StorageError
from tamis.core.failures import Failure
from tamis.core.marks import FINISHED, STARTED, CellFailed, Finished, Started, leave, unique
from tamis.core.run_place import WORKFLOW, RunPlace, known, place_of
from tamis.core.settings import Settings
from tamis.core.storage import write_bytes

log = logging.getLogger(__name__)


def start(*, name: str, uri: str, path: str, outcomes: str = "") -> None:
    """Leave the mark that the run has begun, so that a run without an end is noticed.

    Args:
        name: name of the run in Kubeflow.
        uri: URI of this step's output, from which the run is known.
        path: file of that output, which gets the mark too.
        outcomes: folder for outcomes; none if empty.

    Raises:
        StorageError: when `outcomes` cannot be written, which is better known now than when all work is done.
    """
    place = _place(uri, outcomes)
    _leave(place, STARTED, Started(run=place.run, name=known(name), workflow=os.environ.get(WORKFLOW, "")), path)


def finish(made: str, *, report: str, uri: str, path: str, outcomes: str = "") -> list[Failure]:
    """Leave the mark that every step has run, and return the failed cells.

    Args:
        made: folder of the report, which names the cells that failed.
        report: URI of the report.
        uri: URI of this step's output, from which the run is known.
        path: file of that output, which gets the mark too.
        outcomes: folder for outcomes; none if empty.

    Raises:
        StorageError: when `outcomes` cannot be written.
        ArtifactError: when there is no report.
    """
    failures = [Failure.model_validate(one) for one in Artifact.open(made, "report").manifest.facts["failed"]]
    failed = tuple(unique([CellFailed.of(failure) for failure in failures]))
    page = f"{report.rstrip('/')}/report.html"
    _leave(_place(uri, outcomes), FINISHED, Finished(report=page, failed=failed), path)
    return failures


def _place(uri: str, outcomes: str) -> RunPlace:
    place = place_of(uri, outcomes)
    if place is None:
        raise StorageError(
            f"the run cannot be told from the URI of this step's output, {uri}",
            allowed="a URI as Kubeflow Pipelines 2.17 makes it: …/<run>/<step>/<execution>/<output>",
        )
    return place


def _leave(place: RunPlace, name: str, mark: Settings, path: str) -> None:
    """Write a mark: first where it must be, so that none says that all is done if this step then fails."""
    if place.outcomes is not None and (refused := leave(replace(place, beside=None), name, mark)):
        raise refused[place.outcomes]
    for error in leave(replace(place, outcomes=None), name, mark).values():
        log.info("no mark of the run beside its artifacts: %s", error.problem)
    write_bytes(Path(path), mark.model_dump_json(indent=2).encode())
