"""Checks whether a run becomes too large for Kubeflow."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tamis.core.errors import SettingsError
from tamis_pipelines.checks.check import Check
from tamis_pipelines.settings import RunSettings


def workflow(settings: RunSettings) -> Check:
    """Check the size of the workflow that Kubeflow would make of the run."""
    from tamis_pipelines.workflow.fitting import fitted  # imports kfp, which other checks do not need

    with tempfile.TemporaryDirectory(prefix="tamis-") as folder:
        try:
            return Check("kubeflow: size", "ok", str(fitted(settings, settings.compiled, Path(folder))))
        except SettingsError as error:
            return Check.refused("kubeflow: size", error)
