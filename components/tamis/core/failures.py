"""`failure.json`: what a failed cell of an experiment writes in place of an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from tamis.core.errors import explained_os_errors
from tamis.core.secrets import masked_values, shown
from tamis.core.settings import Settings, canonical_json
from tamis.core.storage import read_bytes, write_bytes

_FILE = "failure.json"


class Failure(Settings):
    """Why a cell has no result: its name, the stage that failed, and the error's code and text.

    `settings` has the settings of the step that failed and of the cell's later steps, by the artifact of each step.
    """

    name: str
    stage: str
    code: str = "error"
    reason: str
    settings: dict[str, dict[str, Any]] = Field({})


def failure_in(path: str | Path) -> Failure | None:
    """The failure at `path`, where an artifact would be, or None."""
    file = Path(path) / _FILE
    return Failure.model_validate_json(read_bytes(file)) if file.is_file() else None


def leave_failure(path: str | Path, failure: Failure) -> None:
    """Write `failure` in place of the artifact at `path`, without a manifest. Secrets are masked.

    Raises:
        StorageError: when it cannot be written.
    """
    with explained_os_errors(f"writing {path}"):
        Path(path).mkdir(parents=True, exist_ok=True)
    masked = masked_values(failure.model_dump(mode="json")) | {"reason": shown(failure.reason)}
    write_bytes(Path(path) / _FILE, canonical_json(masked).encode())
