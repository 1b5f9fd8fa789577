"""Checks before a run: packages, data, models, services, storage, memory, disk. They download and cost nothing."""

from __future__ import annotations

from tamis.core.errors import TamisError
from tamis_pipelines.checks.asked import asked
from tamis_pipelines.checks.benchmarks import benchmarks
from tamis_pipelines.checks.check import Check
from tamis_pipelines.checks.cluster import cluster
from tamis_pipelines.checks.data import data
from tamis_pipelines.checks.files import files
from tamis_pipelines.checks.given import given
from tamis_pipelines.checks.machine import machine
from tamis_pipelines.checks.models import models
from tamis_pipelines.checks.money import money
from tamis_pipelines.checks.packages import packages
from tamis_pipelines.checks.services import services
from tamis_pipelines.checks.trainable import is_laid_out, looked_at
from tamis_pipelines.server import Server
from tamis_pipelines.settings import RunSettings


def examine(settings: RunSettings, *, quick: bool = False) -> list[Check]:
    """Check everything that a run of `settings` needs, in the order in which a user would fix it.

    With `quick`, checks that load PyTorch are skipped if an earlier run has made all models.
    """
    checks = [
        *packages(settings),
        *data(settings),
        *models(settings),
        *files(settings),
        *given(settings),
        *asked(settings),
    ]
    if not (quick and is_laid_out(settings)):
        checks += [
            Check.refused(where, found) if isinstance(found, TamisError) else Check.of(where, True, found)
            for where, found in looked_at(settings)
        ]
        checks += benchmarks(settings)
    return [*checks, *services(settings), *money(settings), *machine(settings)]


def examine_cluster(settings: RunSettings, server: Server) -> list[Check]:
    """Check the Kubeflow server that a run of `settings` is submitted to, and what its pods need there."""
    return list(cluster(settings, server))
