"""Every pod of chart and manifests against the `restricted` standard and the house's rules; and that the rules bite."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.cases import CASES
from tests.kubernetes.conftest import OVERLAYS, overlay, rendered
from tests.kubernetes.objects import name_of, pods
from tests.kubernetes.restricted import house_rules, violations

GOOD: dict[str, Any] = {
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "serviceAccountName": "tamis",
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": 1,
        "fsGroup": 1,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    "containers": [
        {
            "name": "c",
            "image": "registry/image:1",
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "resources": {
                "requests": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi"},
                "limits": {"memory": "1Gi", "ephemeral-storage": "1Gi"},
            },
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        }
    ],
    "volumes": [{"name": "tmp", "emptyDir": {}}],
}


@pytest.mark.parametrize("case", CASES)
def test_pods_of_the_chart_are_restricted(newest_helm: Path, case: str) -> None:
    for document in rendered(newest_helm, CASES[case]):
        for pod in pods(document):
            assert [*violations(pod), *house_rules(pod)] == [], name_of(document)


@pytest.mark.parametrize("name", OVERLAYS)
def test_pods_of_the_manifests_are_restricted(kubectl: Path, name: str) -> None:
    for document in overlay(kubectl, name):
        for pod in pods(document):
            assert [*violations(pod), *house_rules(pod)] == [], name_of(document)


def test_the_good_pod_is_good() -> None:
    assert [*violations(GOOD), *house_rules(GOOD)] == []


def c(pod: dict[str, Any]) -> dict[str, Any]:
    return pod["containers"][0]  # type: ignore[no-any-return]


def own(pod: dict[str, Any]) -> dict[str, Any]:
    return c(pod)["securityContext"]  # type: ignore[no-any-return]


def init(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda pod: pod.update(initContainers=[copy.deepcopy(c(pod)) | {"name": "first"} | changes])


BAD: dict[str, Callable[[dict[str, Any]], Any]] = {
    "hostNetwork is set": lambda p: p.update(hostNetwork=True),
    "hostPID is set": lambda p: p.update(hostPID=True),
    "hostIPC is set": lambda p: p.update(hostIPC=True),
    "hostProcess is set": lambda p: p["securityContext"].update(windowsOptions={"hostProcess": True}),
    "volume tmp is of kind hostPath": lambda p: p.update(volumes=[{"name": "tmp", "hostPath": {"path": "/"}}]),
    "sysctl kernel.msgmax": lambda p: p["securityContext"].update(sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
    "c is privileged": lambda p: own(p).update(privileged=True),
    "c may escalate privileges": lambda p: own(p).pop("allowPrivilegeEscalation"),
    "c does not drop all capabilities": lambda p: own(p).update(capabilities={"drop": ["NET_RAW"]}),
    "c adds capabilities": lambda p: own(p)["capabilities"].update(add=["SYS_ADMIN"]),
    "c may run as root": lambda p: own(p).update(runAsNonRoot=False),
    "c runs as user 0": lambda p: own(p).update(runAsUser=0),
    "c has no seccomp profile": lambda p: p["securityContext"].pop("seccompProfile"),
    "c is not confined by AppArmor": lambda p: own(p).update(appArmorProfile={"type": "Unconfined"}),
    "c sets SELinux options": lambda p: own(p).update(seLinuxOptions={"user": "system_u"}),
    "c changes /proc": lambda p: own(p).update(procMount="Unmasked"),
    "c uses a port of the host": lambda p: c(p).update(ports=[{"containerPort": 1, "hostPort": 1}]),
    "c probes another host": lambda p: c(p).update(livenessProbe={"httpGet": {"host": "x", "port": 1}}),
    "first does not drop all capabilities": init(securityContext={"allowPrivilegeEscalation": False}),
    "a token of the service account is mounted": lambda p: p.pop("automountServiceAccountToken"),
    "service links set variables such as VLLM_PORT": lambda p: p.pop("enableServiceLinks"),
    "no service account is named": lambda p: p.pop("serviceAccountName"),
    "no fsGroup: volumes may belong to root": lambda p: p["securityContext"].pop("fsGroup"),
    "c has a writable root": lambda p: own(p).pop("readOnlyRootFilesystem"),
    "c requests no cpu": lambda p: c(p)["resources"]["requests"].pop("cpu"),
    "c has no limit of memory": lambda p: c(p)["resources"]["limits"].pop("memory"),
    "c leaves no reason in its status": lambda p: c(p).pop("terminationMessagePolicy"),
    "c: the image registry/image has no version": lambda p: c(p).update(image="registry/image"),
    "c mounts x, which is no volume": lambda p: c(p)["volumeMounts"].append({"name": "x", "mountPath": "/x"}),
    "c mounts two volumes at one place": lambda p: c(p)["volumeMounts"].append({"name": "tmp", "mountPath": "/tmp"}),
    "c has no writable /tmp": lambda p: c(p)["volumeMounts"][0].update(mountPath="/x"),
    "no container mounts the volume more": lambda p: p["volumes"].append({"name": "more", "emptyDir": {}}),
}


@pytest.mark.parametrize("expected", BAD)
def test_each_rule_finds_what_it_is_for(expected: str) -> None:
    pod = copy.deepcopy(GOOD)
    BAD[expected](pod)
    assert expected in [*violations(pod), *house_rules(pod)]
