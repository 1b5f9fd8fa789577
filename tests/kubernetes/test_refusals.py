"""Values that the chart refuses, each with a text that names the place and what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.conftest import template


def at(path: str, value: Any) -> dict[str, Any]:
    *parents, last = path.split("/")
    tree: dict[str, Any] = {last: value}
    for parent in reversed(parents):
        tree = {parent: tree}
    return tree


def prefetch(**model: Any) -> dict[str, Any]:
    return at("modelCache/prefetch/models", [model])


def on_kubeflow(section: str, **ca: str) -> dict[str, Any]:
    return {"kubeflow": {"enabled": True}} | at(f"{section}/ca", ca)


def service(**options: Any) -> dict[str, Any]:
    return at("vllm/services", {"a": {"model": "x/y"} | options})


def schedule(**options: Any) -> dict[str, Any]:
    return at("kubeflow/schedules", [{"name": "a", "settings": {"a": 1}} | options])


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("an unknown section", at("storag", {}), "storag"),
    ("an unknown setting", at("storage/s3/endpont", "https://x"), "endpont"),
    ("an unknown setting of the image", at("image/name", "x"), "name"),
    ("an unknown image", at("image/digests/gpu", "sha256:" + "a" * 64), "gpu"),
    ("a tag that moves", at("image/tag", "latest"), "image.tag: 'latest'"),
    ("a tag with a space", at("image/tag", "0 1"), "image/tag"),
    ("a digest that is too short", at("image/digests/cpu", "sha256:abc"), "image/digests/cpu"),
    ("an unknown pull policy", at("image/pullPolicy", "Sometimes"), "image/pullPolicy"),
    ("pull secrets as objects", at("image/pullSecrets", [{"name": "a"}]), "image/pullSecrets"),
    ("a registry with a scheme", at("imageRegistry", "https://registry"), "imageRegistry"),
    ("a name in capitals", at("fullnameOverride", "Tamis"), "fullnameOverride"),
    ("a name that is too long", at("fullnameOverride", "a" * 41), "fullnameOverride"),
    ("a number as an annotation", at("serviceAccount/annotations", {"a": 1}), "serviceAccount/annotations"),
    ("a local path as the root", at("storage/root", "/data"), "storage/root"),
    ("a root in no known storage", at("storage/root", "abfs://bucket/x"), "storage/root"),
    ("a root that ends with a slash", at("storage/root", "s3://bucket/x/"), "storage/root"),
    ("an endpoint without a scheme", at("storage/s3/endpoint", "s3.internal"), "storage/s3/endpoint"),
    ("an unknown addressing style", at("storage/s3/addressingStyle", "dns"), "storage/s3/addressingStyle"),
    (
        "a trial server that the root is not in",
        {"storage": {"root": "az://container/runs"}, "seaweedfs": {"enabled": True}},
        "storage.root: az://container/runs",
    ),
    ("an account in capitals", at("storage/azure/account", "Ours"), "storage/azure/account"),
    ("an account's key in values", at("storage/azure/accountKey", "hunter2"), "accountKey"),
    ("a secret key in values", at("storage/s3/secretAccessKey", "hunter2"), "secretAccessKey"),
    ("a CA from two places", at("storage/s3/ca", {"configMap": "a", "secret": "b"}), "storage.s3.ca: "),
    ("a hub's CA from two places", at("hub/ca", {"configMap": "a", "secret": "b"}), "hub.ca"),
    ("a Secret's CA for Kubeflow", on_kubeflow("storage/s3", secret="a"), "the Secret a"),
    ("another key's CA for Kubeflow", on_kubeflow("storage/s3", configMap="a", key="b"), "the key b"),
    ("a hub's CA in a Secret for Kubeflow", on_kubeflow("hub", secret="a"), "hub.ca.configMap"),
    ("offline as a word", at("hub/offline", "yes"), "hub/offline"),
    ("a token in values", at("hub/token", "hf_x"), "token"),
    ("an unknown access mode", at("modelCache/accessModes", ["ReadWrite"]), "modelCache/accessModes"),
    ("no access mode", at("modelCache/accessModes", []), "modelCache/accessModes"),
    ("a size without sense", at("modelCache/size", "big"), "modelCache/size"),
    ("a model of an unknown kind", prefetch(kind="ftp", repo="a/b"), "modelCache/prefetch/models/0"),
    ("a model without a repository", prefetch(kind="hub"), "repo"),
    ("a model with an unknown option", prefetch(kind="hub", repo="a/b", revison="x"), "revison"),
    ("a copy outside the cache", prefetch(kind="storage", uri="s3://b/m", folder="/data/m"), "folder"),
    ("a copy from the web", prefetch(kind="storage", uri="https://b/m", folder="/cache/hf/m"), "uri"),
    (
        "models and no cache",
        at("modelCache", {"enabled": False, "prefetch": {"models": [{"kind": "hub", "repo": "a/b"}]}}),
        "modelCache.enabled",
    ),
    (
        "models from a hub that is off",
        prefetch(kind="hub", repo="a/b") | at("hub/offline", True),
        "hub.offline is true",
    ),
    ("a variable without a value", at("pod/extraEnv", [{"name": "A"}]), "value"),
    ("a variable with an odd name", at("pod/extraEnv", [{"name": "A-B", "value": "x"}]), "pod/extraEnv/0/name"),
    ("an unknown effect", at("pod/tolerations", [{"effect": "NoRun"}]), "pod/tolerations/0/effect"),
    ("an unknown resource section", at("pod/resources", {"request": {}}), "request"),
    ("memory without sense", at("pod/resources", {"limits": {"memory": "lots"}}), "memory"),
    ("a service without a model", at("vllm/services", {"a": {}}), "model"),
    ("a service with an odd name", at("vllm/services", {"A_b": {"model": "x/y"}}), "A_b"),
    ("an unknown option of a service", service(gpu=1), "gpu"),
    ("no GPU", service(gpus=0), "gpus"),
    ("half a GPU", service(gpus=0.5), "gpus"),
    ("replicas below zero", service(replicas=-1), "replicas"),
    (
        "replicas beside an autoscaler",
        service(replicas=1, autoscaling={"minReplicas": 1, "maxReplicas": 2}),
        "vllm.services.a: replicas and autoscaling",
    ),
    (
        "an autoscaler upside down",
        service(autoscaling={"minReplicas": 3, "maxReplicas": 2}),
        "vllm.services.a.autoscaling: minReplicas 3",
    ),
    ("an autoscaler without a bound", service(autoscaling={"minReplicas": 1}), "maxReplicas"),
    ("no flavor", at("kueue/flavors", []), "kueue/flavors"),
    ("a flavor without quotas", at("kueue/flavors", [{"name": "a"}]), "quotas"),
    ("a quota of an odd resource", at("kueue/flavors", [{"name": "a", "quotas": {"gpu": "1"}}]), "quotas"),
    ("an account without a name", at("kubeflow/artifactSecret", ""), "kubeflow/artifactSecret"),
    ("an upload to nowhere", at("kubeflow", {"enabled": True, "upload": True}), "kubeflow.server.host"),
    ("an upload without an account", at("kubeflow", {"upload": True, "server": {"host": "http://x"}}), "enabled: true"),
    ("a trainer with a made-up size", at("trainer/work/size", "much"), "trainer/work/size"),
    ("a schedule without a time", at("kubeflow/schedules", [{"name": "a", "settings": {"a": 1}}]), "schedules"),
    ("a schedule with two", schedule(cron="0 0 3 * * *", every=5), "kubeflow/schedules/0"),
    ("a time of five fields", schedule(cron="0 3 * * *"), "cron"),
    ("a schedule without settings", at("kubeflow/schedules", [{"name": "a", "every": 5}]), "settings"),
    ("an image without a version", at("seaweedfs/image", "docker.io/chrislusf/seaweedfs"), "seaweedfs/image"),
    ("an address range that is none", at("networkPolicy/egress", [{"cidr": "10.0.0.0", "ports": [1]}]), "cidr"),
    ("a port that is none", at("networkPolicy/egress", [{"cidr": "10.0.0.0/8", "ports": [70000]}]), "ports"),
    ("an interval without a unit", at("monitoring/interval", "30"), "monitoring/interval"),
    ("a switch as a number", at("tests/storage", 1), "tests/storage"),
]


@pytest.mark.parametrize(("values", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_bad_value_is_refused_and_named(newest_helm: Path, values: dict[str, Any], words: str) -> None:
    ended = template(newest_helm, values)
    assert ended.returncode != 0, "accepted"
    assert words in ended.stderr


def test_helm_3_refuses_the_same(helm: Path) -> None:
    for name, values, _ in REFUSED[::6]:
        assert template(helm, values).returncode != 0, name
