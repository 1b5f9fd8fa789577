"""Every overlay, as a real API server takes it."""

from __future__ import annotations

import subprocess

import pytest
import yaml

from tests.cluster.conftest import Cluster
from tests.kubernetes.conftest import MANIFESTS, OVERLAYS, tools


@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize("name", OVERLAYS)
def test_the_server_accepts_every_object_that_it_knows(cluster: Cluster, name: str) -> None:
    known = cluster("api-resources", "--verbs=create", "--no-headers")
    kinds = {line.split()[-1] for line in known.splitlines()}
    folder = MANIFESTS / "overlays" / name
    built = subprocess.run([tools(4) / "kubectl", "kustomize", folder], capture_output=True, text=True, check=True)
    whole = list(yaml.safe_load_all(built.stdout))
    objects = [made for made in whole if made["kind"] in kinds]
    assert {"Job", "ConfigMap"} <= {made["kind"] for made in objects}
    options = ["--dry-run=server", "--validate=false"]
    if objects == whole:
        said = cluster("apply", "-k", folder, *options)
    else:  # without the definitions of Kueue or of the Trainer
        said = cluster("apply", "-f", "-", *options, given=yaml.safe_dump_all(objects))
    assert said.count("(server dry run)") == len(objects)
