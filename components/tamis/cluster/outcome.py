"""How a run on Kubeflow ended: for people in the UI, for programs as a file in object storage."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from tamis.core.progress import set_up_logging
from tamis.core.storage import locate, write_bytes

log = logging.getLogger(__name__)


class FinalStatus(Protocol):
    """What Kubeflow tells the last task of a run."""

    state: str
    pipeline_job_resource_name: str
    pipeline_task_name: str
    error_code: int | None
    error_message: str | None


def note(status: FinalStatus, *, page: str, folder: str = "") -> None:
    """Write the outcome of a run.

    Args:
        status: state of everything before the last task.
        page: Markdown file for the UI.
        folder: local folder or object-storage prefix for `<run>.json` (run, state, error, ended); none if empty.

    Raises:
        StorageError: when `folder` cannot be written.
    """
    set_up_logging()
    run = status.pipeline_job_resource_name.rsplit("/", 1)[-1]
    error = status.error_message or ""
    if status.state != "SUCCEEDED":
        log.error("the run %s ended as %s: %s", run, status.state, error or "no reason given")
    Path(page).parent.mkdir(parents=True, exist_ok=True)
    Path(page).write_text(_as_markdown(run, status.state, error), encoding="utf-8")
    if folder:
        facts = {"run": run, "state": status.state, "error": error, "ended": datetime.now(UTC).isoformat()}
        write_bytes(locate(folder) / f"{run}.json", json.dumps(facts, indent=2).encode())


def _as_markdown(run: str, state: str, error: str) -> str:
    if state == "SUCCEEDED":
        return f"# {state}\n\nRun `{run}`. The report is the artifact `page` of the step `report`.\n"
    reason = "\n".join(f"    {line}" for line in (error or "Kubeflow gave no reason").splitlines())
    return (
        f"# {state}\n\nRun `{run}`.\n\n{reason}\n\nThe failed step's last log lines say what to do. Submit the same "
        "settings again: finished steps are reused.\n"
    )
