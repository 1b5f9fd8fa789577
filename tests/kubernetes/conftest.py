"""The chart and the manifests, rendered by the real programs."""

from __future__ import annotations

import json
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import one_at_a_time
from tests.kubernetes import binaries
from tests.kubernetes.binaries import ROOT

CHART = ROOT / "helm" / "tamis"
MANIFESTS = ROOT / "manifests"
OVERLAYS = sorted(path.name for path in (MANIFESTS / "overlays").iterdir())
ON_THE_CHART = "trial"  # this overlay has no base: its namespace has a release of the chart

Objects = list[dict[str, Any]]


def tools(helm: int) -> Path:
    """Folder with helm of this major version, and kubectl."""
    try:
        with one_at_a_time("tools"):
            return binaries.tools(helm)
    except binaries.Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session", params=[3, 4], ids=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest) -> Path:
    """The program helm, of both major versions."""
    return tools(request.param) / "helm"


@pytest.fixture(scope="session")
def newest_helm() -> Path:
    """The program helm, of the newer major version."""
    return tools(4) / "helm"


@pytest.fixture(scope="session")
def kubectl() -> Path:
    """The program kubectl."""
    return tools(4) / "kubectl"


def template(
    helm: Path, values: dict[str, Any] | None = None, *options: str | Path
) -> subprocess.CompletedProcess[str]:
    """Return what `helm template` prints for these values, in the namespace `tamis`."""
    command = [helm, "template", "tamis", CHART, "--namespace", "tamis", *options, "--values", "-"]
    return subprocess.run(command, input=json.dumps(values or {}), capture_output=True, text=True)


def rendered(helm: Path, values: dict[str, Any] | None = None, *options: str | Path) -> Objects:
    """The chart's objects for these values."""
    text = _rendered(helm, json.dumps(values or {}), *options)
    return [document for document in yaml.safe_load_all(text) if document]


@lru_cache
def _rendered(helm: Path, values: str, *options: str | Path) -> str:
    ended = template(helm, json.loads(values), *options)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@lru_cache
def _built(kubectl: Path, folder: Path) -> str:
    ended = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "Warning" not in ended.stderr, ended.stderr
    return ended.stdout


def overlay(kubectl: Path, name: str) -> Objects:
    """Return the objects of an overlay, from `kubectl kustomize`."""
    return list(yaml.safe_load_all(_built(kubectl, MANIFESTS / "overlays" / name)))
