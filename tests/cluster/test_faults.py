"""What goes wrong around a pod: it resumes, or its last words in the pod's status say why it did not."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import private_certificate
from tests.cluster.conftest import (
    HOST,
    NAMESPACE,
    Cluster,
    credentials,
    only,
    parts_in_the_store,
    ratings_in,
    selection,
)
from tests.kubernetes.conftest import Objects
from tests.llm_server import Reaction, Server, completion
from tests.storage.seaweed import BUCKET, Seaweed

pytestmark = [pytest.mark.timeout(1800), pytest.mark.usefixtures("namespace", "volume")]


def pool_settings(storage: Seaweed, count: int) -> dict[str, Any]:
    """Settings of the stage pool for so many samples, which are put into the store."""
    rows = [{"instruction": f"Say {number}.", "output": f"It is {number}. " * 20} for number in range(count)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    storage.client().put_object(Bucket=BUCKET, Key=f"data/{count}.jsonl", Body=text.encode())
    return {"sources": [{"name": "facts", "path": f"s3://{BUCKET}/data/{count}.jsonl", "schema": "instruction"}]}


def pool_alone(
    storage: Seaweed, run: str, environment: dict[str, str] | None = None, components: Sequence[str] = ()
) -> Objects:
    """A Job that makes a pool of 20 samples."""
    settings = {"pool": pool_settings(storage, 20)}
    return only(selection(storage, settings, run, environment, components), "tamis-pool")


ROWS = 60


@pytest.fixture
def service() -> Iterator[Server]:
    """A model that pods reach, slow enough to be disturbed in the middle: half a minute for all samples."""
    with Server(lambda asked: Reaction(completion(), delay=1), address=HOST) as server:
        yield server


def rating_alone(storage: Seaweed, run: str, service: Server) -> Objects:
    """Jobs that make a pool of `ROWS` samples and let the service rate it."""
    backend = {"kind": "openai", "model": "m", "base_url": service.url, "api_key_env": None, "concurrency": 2}
    settings = {"pool": pool_settings(storage, ROWS), "rater-llama": {"name": "m", "backend": backend}}
    return with_tries(only(selection(storage, settings, run), "tamis-pool", "tamis-rate-llama"))


def assert_rated_once(storage: Seaweed, run: str, service: Server) -> None:
    """Every sample has one rating in the store, and what was there before the fault was not asked for again."""
    stored = ratings_in(storage, parts_in_the_store(storage, run))
    assert len(stored) == len(set(stored)) == ROWS
    assert len(service.asked) <= ROWS + 30, "more than the seconds before the fault was asked again"


def with_tries(objects: Objects) -> Objects:
    """The objects with as many tries for each Job as the manifests give."""
    for made in objects:
        if made["kind"] == "Job":
            made["spec"]["backoffLimit"] = 6
    return objects


def last_words(cluster: Cluster, job: str) -> str:
    """The termination message of the Job's last pod, and why its container ended."""
    ended = [
        state["state"]["terminated"]
        for pod in cluster.pods(job)[-1:]
        for status in [pod["status"]]
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


def by_tls(cluster: Cluster, storage: Seaweed, run: str, ca: Path | None) -> Objects:
    """The Job with the storage's address by TLS; `ca` is the authority that its pods are told to trust."""
    private = {"AWS_ENDPOINT_URL_S3": f"https://{HOST}:{storage.tls_port}", "AWS_MAX_ATTEMPTS": "1"}
    components = ["storage-ca"] if ca else []
    if ca:
        cluster("-n", NAMESPACE, "create", "configmap", "internal-ca", f"--from-file=ca.crt={ca}")
    return pool_alone(storage, run, private, components)


@pytest.mark.parametrize("told", ["none", "another's"])
def test_a_server_whose_certificate_nobody_vouches_for(
    cluster: Cluster, storage: Seaweed, tmp_path: Path, told: str
) -> None:
    ca = private_certificate(tmp_path)[1] if told == "another's" else None
    cluster.apply(by_tls(cluster, storage, "runs/tls", ca))
    assert cluster.ended(["tamis-pool"]) == {"tamis-pool": False}
    assert "is not trusted" in (said := last_words(cluster, "tamis-pool")), said


def test_a_server_whose_authority_the_component_names(cluster: Cluster, storage: Seaweed) -> None:
    cluster.apply(by_tls(cluster, storage, "runs/tls-trusted", storage.ca))
    assert cluster.ended(["tamis-pool"]) == {"tamis-pool": True}


def test_a_server_that_is_away_at_the_start_and_comes_back(cluster: Cluster, storage: Seaweed) -> None:
    """The Job's pods fail while it is away, and one of its six further tries ends well."""
    objects = with_tries(pool_alone(storage, "runs/start", {"AWS_MAX_ATTEMPTS": "1"}))
    storage.stop()
    try:
        cluster.apply(objects)
        cluster.wait(lambda: "Error" in last_words(cluster, "tamis-pool"), 120, "pod that failed")
    finally:
        storage.start()
    assert cluster.ended(["tamis-pool"], 300) == {"tamis-pool": True}
    assert storage.client().get_object(Bucket=BUCKET, Key="runs/start/pool/manifest.json")


def test_a_server_that_goes_away_in_the_middle_and_comes_back(
    cluster: Cluster, storage: Seaweed, service: Server
) -> None:
    """While ratings are stored: the rater keeps them until they can be stored, or its next pod goes on behind them."""
    run = "runs/middle"
    cluster.apply(rating_alone(storage, run, service))
    cluster.wait(lambda: parts_in_the_store(storage, run), 300, "rating in the store")
    storage.stop()
    time.sleep(10)
    storage.start()
    assert cluster.ended(["tamis-rate-llama"], 600)["tamis-rate-llama"]
    assert_rated_once(storage, run, service)


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


@pytest.mark.parametrize("how", ["evicted", "deleted"])
def test_a_pod_that_is_taken_away_is_replaced(cluster: Cluster, storage: Seaweed, service: Server, how: str) -> None:
    """Evicted through the API, as by `kubectl drain`; deleted at once, as when its node is preempted."""
    run = f"runs/{how}"
    cluster.apply(rating_alone(storage, run, service))
    cluster.wait(lambda: parts_in_the_store(storage, run), 300, "rating in the store")
    pod = cluster.pods("tamis-rate-llama")[-1]["metadata"]["name"]
    if how == "evicted":
        cluster.evict(pod)
    else:
        cluster("-n", NAMESPACE, "delete", "pod", pod, "--grace-period=0", "--force")
    assert cluster.ended(["tamis-rate-llama"], 600)["tamis-rate-llama"]
    assert cluster.pods("tamis-rate-llama")[-1]["metadata"]["name"] != pod
    assert_rated_once(storage, run, service)


def test_a_pod_that_fills_its_node_s_disk_is_evicted_with_the_reason(cluster: Cluster, storage: Seaweed) -> None:
    def small(pod: dict[str, Any]) -> None:
        for volume in pod["volumes"]:
            if volume["name"] == "tmp":
                volume["emptyDir"] = {"sizeLimit": "1Mi"}
        pod["containers"][0] |= {
            "command": ["python3", "-c"],
            "args": ["import time; open('/tmp/large', 'wb').write(bytes(8 << 20)); time.sleep(600)"],
        }

    cluster.apply(elsewhere(pool_alone(storage, "runs/sizes"), small))
    assert cluster.ended(["tamis-pool"]) == {"tamis-pool": False}
    status = cluster.pods("tamis-pool")[-1]["status"]
    assert status["reason"] == "Evicted"
    assert "exceeds the limit" in status["message"]
