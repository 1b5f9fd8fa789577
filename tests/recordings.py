"""What a real Kubeflow Pipelines server answered to eight runs.

The recordings are in the folder that `TAMIS_TEST_KUBEFLOW` names. Tests that need them skip elsewhere.
"""

from __future__ import annotations

import gzip
import json
import os
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest

CASES = (
    "experiment",
    "failed-cell",
    "cached-failure",
    "cached",
    "wrong-credentials",
    "terminated",
    "too-large",
    "sharded-pod-deleted",
)


def recorded(case: str, api: Literal["v1beta1", "v2beta1"]) -> Any:
    """What one version of the API answered: v1beta1 once, after the end; v2beta1 as a list, in order of time."""
    folder = os.environ.get("TAMIS_TEST_KUBEFLOW")
    if not folder:
        pytest.skip("TAMIS_TEST_KUBEFLOW names no folder with recorded answers")
    return _read(Path(folder, case, f"{api}.json.gz"))


@cache
def _read(file: Path) -> Any:
    return json.loads(gzip.decompress(file.read_bytes()))
