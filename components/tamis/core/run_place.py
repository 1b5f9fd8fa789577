"""Where a run on Kubeflow keeps its marks, found from the URI that Kubeflow gives to a step's output.

A URI is part of no key of Kubeflow's cache, unlike the parameters of a step. So a step can learn from it which run it
belongs to, and is still reused in other runs.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass

from tamis.core.errors import TamisError
from tamis.core.storage import Location, locate

OUTCOMES = "TAMIS_OUTCOMES"  # environment variable: the folder for outcomes, where it is compiled into a package
WORKFLOW = "TAMIS_WORKFLOW"  # environment variable of a run's first step: name of the run's Argo workflow
RETRIES = "KFP_RETRY_INDEX"  # environment variable that Kubeflow sets: 0 for the first attempt
_MARKS = "tamis-marks"  # folder of the marks beside a run's artifacts
_ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# Kubeflow: …/<run>/<step>/<execution>/<output>. An execution keeps its URI through all attempts.
_ON_KUBEFLOW = re.compile(rf"(?P<folder>.*/(?P<run>{_ID}))/(?P<step>[^/]+)/(?P<execution>{_ID})(?:/|$)")
# kfp.local: …/<pipeline>-<time>/<loops>/<step>/<output>.
_TIME = r"\d{4}(?:-\d\d){5}-\d{6}"
_LOCAL = re.compile(rf"(?P<folder>.*/(?P<run>[^/]+-{_TIME}))/(?P<execution>(?:[^/]+/)*?(?P<step>[^/]+))/[^/]+")


@dataclass(frozen=True)
class RunPlace:
    """What a step knows about its run.

    Attributes:
        run: id of the run.
        step: name of the step's task, as in "find-neighbors".
        execution: identifies this execution of the step, in this run alone; equal for all its attempts.
        beside: folder of the marks beside the run's artifacts; None where Tamis cannot use such a place (`minio://`).
        outcomes: folder of the marks in the folder for outcomes; None if there is none.
    """

    run: str
    step: str = ""
    execution: str = ""
    beside: Location | None = None
    outcomes: Location | None = None

    @property
    def folders(self) -> list[Location]:
        """All folders of marks. Each has all marks that could be written there; one is enough."""
        return [folder for folder in (self.beside, self.outcomes) if folder is not None]


def place_of(uri: str, outcomes: str = "") -> RunPlace | None:
    """The place of the run to which an output with this URI belongs; None if no run of Kubeflow has such a URI.

    `outcomes` is the folder for outcomes; if empty, the one that is compiled into the package.

    Raises:
        StorageError: when `outcomes` is not in a storage that Tamis knows.
        MissingExtraError: when the client of that storage is not installed.
    """
    found = _ON_KUBEFLOW.match(uri) or _LOCAL.fullmatch(uri)
    if found is None:
        return None
    run, compiled = found["run"], os.environ.get(OUTCOMES, "")
    kept = locate(outcomes) if outcomes else _usable(compiled) if compiled else None
    return RunPlace(
        run=run,
        step=found["step"],
        execution=hashlib.sha256(found["execution"].encode()).hexdigest()[:16],
        beside=_usable(f"{found['folder']}/{_MARKS}"),
        outcomes=None if kept is None else kept / run,
    )


def known(placeholder: str) -> str:
    """What Kubeflow has put in place of a placeholder; empty where it has not."""
    return "" if placeholder.startswith("{{$") else placeholder


def attempt() -> int:
    """Which attempt of its step this process is, from 1."""
    said = os.environ.get(RETRIES, "")
    return int(said) + 1 if said.isdecimal() else 1


def _usable(folder: str) -> Location | None:
    try:
        return locate(folder)
    except TamisError:
        return None
