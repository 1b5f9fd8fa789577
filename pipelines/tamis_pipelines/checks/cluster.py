"""Checks before a run on Kubeflow: whether `tamis submit` would refuse it, and what the server offers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from tamis.core.errors import TamisError
from tamis_pipelines.budget import by_payer, shares_of
from tamis_pipelines.checks.check import Check
from tamis_pipelines.checks.claims import claims
from tamis_pipelines.checks.places import check_places
from tamis_pipelines.checks.reachable import refusals
from tamis_pipelines.runs.reading import workflow_of
from tamis_pipelines.runs.workflow import UnreadableError
from tamis_pipelines.server import Connection, KubeflowError, Server
from tamis_pipelines.settings import RunSettings

_SETS_IDENTITY = (2, 17)  # the first version that takes a security context


def cluster(settings: RunSettings, server: Server) -> Iterator[Check]:
    """Check what `tamis submit` refuses, the server, and the claims that the run's pods mount."""
    yield from _settings(settings)
    yield _size(settings)
    yield _places(settings)
    try:
        connection = Connection(server)
    except KubeflowError as error:
        yield Check.refused("kubeflow", error)
        return
    yield _version(settings, connection)
    yield from _store(connection)
    try:
        yield _manifest(connection)
    except KubeflowError as error:
        yield Check.refused("kubeflow: runs", error)
    yield from claims(settings, server.namespace or "kubeflow")


def _settings(settings: RunSettings) -> Iterator[Check]:
    """Whether pods can use what the settings name."""
    refused = [Check.refused("settings", error) for error in refusals(settings)]
    yield from refused or [Check("settings", "ok", "pods can use all files, stores and keys that the settings name")]


def _places(settings: RunSettings) -> Check:
    """Whether the places in object storage that the run will write to can be written from here."""
    try:
        untested = check_places(settings)
    except TamisError as error:
        return Check.refused("storage", error)
    if untested:
        return Check("storage", "note", "; ".join(untested), "make sure that pods can write there")
    return Check("storage", "ok", "the places in object storage that the settings name for results can be written")


def _size(settings: RunSettings) -> Check:
    """Whether the run's workflow fits into one object of Kubernetes."""
    from tamis_pipelines.workflow.fitting import fitted  # imports kfp, which no other check needs

    try:
        shares = by_payer(shares_of(settings))
        with TemporaryDirectory(prefix="tamis-") as folder:
            made = fitted(settings, settings.compiled, Path(folder), shares=shares)
    except TamisError as error:
        return Check.refused("kubeflow: workflow", error)
    return Check("kubeflow: workflow", "ok", str(made))


def _version(settings: RunSettings, connection: Connection) -> Check:
    name, host = str(connection.health.get("tag_name") or ""), connection.server.host
    found = re.match(r"v?(\d+)\.(\d+)", name)
    if found is None:
        return Check("kubeflow", "note", f"{host} does not say its version", "Tamis has been run with version 2.17")
    seen = f"{host} is Kubeflow Pipelines {name}"
    if (int(found[1]), int(found[2])) < _SETS_IDENTITY and settings.compiled.identity:
        return Check(
            "kubeflow", "note", f"{seen}, which refuses a user in pods", "set kubeflow.compiled.identity=false"
        )
    return Check("kubeflow", "ok", seen)


def _store(connection: Connection) -> Iterator[Check]:
    """How pipelines come to the server, if it says where it keeps them."""
    if store := connection.health.get("pipeline_store"):
        where = "as Kubernetes objects" if store == "kubernetes" else f"in its {store}"
        way = "tamis compile --objects, then kubectl apply" if store == "kubernetes" else "tamis upload"
        yield Check("kubeflow: pipelines", "ok", f"the server keeps pipelines {where}; to add some: {way}")


def _manifest(connection: Connection) -> Check:
    """Whether the API returns a run's workflow, from which progress and reasons come."""
    query = {"namespace": connection.server.namespace, "page_size": "1", "sort_by": "created_at desc"}
    runs = connection.request("GET", "/apis/v2beta1/runs", query, doing="listing runs").get("runs")
    if not runs:
        return Check("kubeflow: runs", "note", "the server has no run yet, so what it returns of a run is unknown")
    try:
        workflow_of(connection, str(runs[0]["run_id"]))
    except UnreadableError as error:
        return Check(
            "kubeflow: runs",
            "note",
            f"{error}; tamis status will not name raters and cells, and may show old states and no reasons",
            "allow the API's version v1beta1, or read the run's page in the UI",
        )
    return Check("kubeflow: runs", "ok", "the server returns runs with their workflow")
