"""What goes wrong around a pod: it resumes, or its last words in the pod's status say why it did not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import HOST, NAMESPACE, Cluster, credentials, only, selection
from tests.kubernetes.conftest import Objects
from tests.storage.seaweed import BUCKET, Seaweed

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("namespace", "volume")]


def pool_alone(storage: Seaweed, run: str, environment: dict[str, str] | None = None) -> Objects:
    """A Job that makes a pool of 20 samples."""
    rows = [{"instruction": f"Say {number}.", "output": f"It is {number}. " * 20} for number in range(20)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    storage.client().put_object(Bucket=BUCKET, Key="data/faults.jsonl", Body=text.encode())
    source = {"name": "facts", "path": f"s3://{BUCKET}/data/faults.jsonl", "schema": "instruction"}
    return only(selection(storage, {"pool": {"sources": [source]}}, run, environment), "tamis-pool")


def last_words(cluster: Cluster, job: str) -> str:
    """The termination message of the Job's last pod, and why its container ended."""
    status = cluster.pods(job)[-1]["status"]
    ended = [
        state["state"]["terminated"]
        for state in [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
        if "terminated" in state["state"] and state["state"]["terminated"]["exitCode"]
    ]
    return "\n".join(f"{state['reason']}: {state.get('message', '')}" for state in ended)


def elsewhere(objects: Objects, change: Callable[[dict[str, Any]], None]) -> Objects:
    """The objects with `change` made to each Job's pod."""
    for made in objects:
        if made["kind"] == "Job":
            change(made["spec"]["template"]["spec"])
    return objects


def test_wrong_credentials(cluster: Cluster, storage: Seaweed) -> None:
    _, *objects = pool_alone(storage, "runs/credentials")
    cluster.apply([credentials(secret="wrong"), *objects])
    assert cluster.ended(["tamis-pool"]) == {"tamis-pool": False}
    assert "AccessDenied" in (said := last_words(cluster, "tamis-pool")) or "SignatureDoesNotMatch" in said, said
    assert "wrong" not in said.split()


def test_a_bucket_that_is_not_there(cluster: Cluster, storage: Seaweed) -> None:
    objects = pool_alone(storage, "runs/bucket")
    for made in objects:
        if made["metadata"]["name"].startswith("tamis-run"):
            made["data"]["TAMIS_RUN"] = "s3://nowhere/runs"
    cluster.apply(objects)
    assert cluster.ended(["tamis-pool"]) == {"tamis-pool": False}
    assert "nowhere" in (said := last_words(cluster, "tamis-pool")), said
    assert "NoSuchBucket" in said or "bucket" in said, said


def test_a_server_that_is_away(cluster: Cluster, storage: Seaweed) -> None:
    away = {"AWS_ENDPOINT_URL_S3": f"http://{HOST}:9", "AWS_MAX_ATTEMPTS": "2"}
    cluster.apply(pool_alone(storage, "runs/away", away))
    assert cluster.ended(["tamis-pool"]) == {"tamis-pool": False}
    assert f"http://{HOST}:9" in (said := last_words(cluster, "tamis-pool")), said


def test_a_server_whose_certificate_nobody_vouches_for(cluster: Cluster, storage: Seaweed) -> None:
    private = {"AWS_ENDPOINT_URL_S3": f"https://{HOST}:{storage.tls_port}", "AWS_MAX_ATTEMPTS": "1"}
    cluster.apply(pool_alone(storage, "runs/tls", private))
    assert cluster.ended(["tamis-pool"]) == {"tamis-pool": False}
    assert "CERTIFICATE_VERIFY_FAILED" in (said := last_words(cluster, "tamis-pool")), said


def test_a_server_that_goes_away_in_the_middle_and_comes_back(cluster: Cluster, storage: Seaweed) -> None:
    """The Job's pods fail while it is away, and one of its six further tries ends well."""
    objects = pool_alone(storage, "runs/middle", {"AWS_MAX_ATTEMPTS": "1"})
    for made in objects:
        if made["kind"] == "Job":
            made["spec"]["backoffLimit"] = 6
    storage.stop()
    try:
        cluster.apply(objects)
        cluster.wait(lambda: any("Error" in last_words(cluster, "tamis-pool") for _ in "."), 120, "pod that failed")
    finally:
        storage.start()
    assert cluster.ended(["tamis-pool"], 300) == {"tamis-pool": True}
    assert storage.client().get_object(Bucket=BUCKET, Key="runs/middle/pool/manifest.json")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 KiB on the node, which is this machine, so that its own disk is left alone."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k,mode=1777", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_disk_that_is_full(cluster: Cluster, storage: Seaweed, small_disk: Path) -> None:
    def small(pod: dict[str, Any]) -> None:
        for volume in pod["volumes"]:
            if volume["name"] in ("tmp", "cache"):
                del volume["emptyDir"]
                volume["hostPath"] = {"path": str(small_disk)}

    cluster.apply(elsewhere(pool_alone(storage, "runs/disk"), small))
    assert cluster.ended(["tamis-pool"]) == {"tamis-pool": False}
    assert "no space left on the device" in (said := last_words(cluster, "tamis-pool")), said


def test_too_little_memory_is_in_the_status(cluster: Cluster, storage: Seaweed) -> None:
    def little(pod: dict[str, Any]) -> None:
        pod["containers"][0]["resources"]["limits"]["memory"] = "40Mi"
        pod["containers"][0]["resources"]["requests"]["memory"] = "20Mi"

    cluster.apply(elsewhere(pool_alone(storage, "runs/memory"), little))
    assert cluster.ended(["tamis-pool"]) == {"tamis-pool": False}
    assert "OOMKilled" in last_words(cluster, "tamis-pool")


def test_a_pod_that_is_evicted_is_replaced(cluster: Cluster, storage: Seaweed, model_folder: Path) -> None:
    """A deleted pod, as by preemption: the Job makes another one, which does not count as a failure."""
    objects = pool_alone(storage, "runs/evicted")
    cluster.apply(objects)
    pod = cluster.wait(lambda: cluster.pods("tamis-pool"), 60, "pod")[0]["metadata"]["name"]
    cluster("-n", NAMESPACE, "delete", "pod", pod, "--grace-period=0", "--force")
    assert cluster.ended(["tamis-pool"]) == {"tamis-pool": True}
