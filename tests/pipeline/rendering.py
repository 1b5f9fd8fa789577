"""Pods as Kubeflow makes them from a compiled package: executor, platform settings, values of the run's parameters.

Only what Kubeflow takes from the package is here. What its driver adds by itself (its own init container and volumes,
the rest of the security context) is left to the tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Ir = dict[str, Any]
_PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['(?:pipelinechannel--)?([\w-]+)'\]\}\}")


def load(package: Path) -> tuple[Ir, Ir]:
    """The pipeline's IR and its platform settings."""
    ir, platform = yaml.safe_load_all(package.read_text())
    return ir, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def defaults(ir: Ir) -> dict[str, Any]:
    """Values that parameters have if a run gives none."""
    parameters = ir["root"]["inputDefinitions"]["parameters"]
    return {name: value["defaultValue"] for name, value in parameters.items() if "defaultValue" in value}


def pods(ir: Ir, platform: Ir, given: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name of each executor, and its pod's spec with the parameters `given`."""
    for name, executor in ir["deploymentSpec"]["executors"].items():
        yield name.removeprefix("exec-"), _pod(executor["container"], platform[name], given)


def _pod(container: Ir, settings: Ir, given: dict[str, Any]) -> dict[str, Any]:
    def text(value: str) -> str:
        return _PLACEHOLDER.sub(lambda match: str(given[match[1]]), value)

    def of(parameter: Ir) -> Any:
        if "componentInputParameter" in parameter:
            return given[parameter["componentInputParameter"].removeprefix("pipelinechannel--")]
        return parameter["runtimeValue"]["constant"]

    resources = container["resources"]
    requests = {"cpu": text(resources["resourceCpuRequest"]), "memory": text(resources["resourceMemoryRequest"])}
    limits = {"memory": text(resources["resourceMemoryLimit"])}
    if "accelerator" in resources:
        accelerator = resources["accelerator"]
        limits[text(accelerator["resourceType"])] = text(accelerator["resourceCount"])
    volumes, mounts = [], []
    for empty in settings["emptyDirMounts"]:
        limit = {"sizeLimit": empty["sizeLimit"]} if "sizeLimit" in empty else {}
        medium = {"medium": empty["medium"]} if "medium" in empty else {}
        volumes.append({"name": empty["volumeName"], "emptyDir": limit | medium})
        mounts.append({"name": empty["volumeName"], "mountPath": empty["mountPath"]})
    for claim in settings.get("pvcMount", []):
        name = of(claim["pvcNameParameter"])
        volumes.append({"name": name, "persistentVolumeClaim": {"claimName": name}})
        mounts.append({"name": name, "mountPath": claim["mountPath"]})
    for config in settings["configMapAsVolume"]:
        name = of(config["configMapNameParameter"])
        volumes.append({"name": name, "configMap": {"name": name, "optional": config["optional"]}})
        mounts.append({"name": name, "mountPath": config["mountPath"]})
    env: list[dict[str, Any]] = [*container.get("env", [])]
    for given_field in settings.get("fieldPathAsEnv", []):
        source = {"fieldPath": given_field["fieldPath"]}
        env.append({"name": given_field["name"], "valueFrom": {"fieldRef": source}})
    for config in settings["configMapAsEnv"]:
        name = of(config["configMapNameParameter"])
        for pair in config["keyToEnv"]:
            source = {"name": name, "key": pair["configMapKey"], "optional": config["optional"]}
            env.append({"name": pair["envVar"], "valueFrom": {"configMapKeyRef": source}})
    for secret in settings["secretAsEnv"]:
        name = of(secret["secretNameParameter"])
        for pair in secret["keyToEnv"]:
            source = {"name": name, "key": pair["secretKey"], "optional": secret["optional"]}
            env.append({"name": pair["envVar"], "valueFrom": {"secretKeyRef": source}})
    context = settings["securityContext"]
    pod: dict[str, Any] = {
        "nodeSelector": of(settings["nodeSelector"]["nodeSelectorJson"]),
        "tolerations": of(settings["tolerations"][0]["tolerationJson"]),
        "volumes": volumes,
        "containers": [
            {
                "name": "main",
                "image": text(container["image"]),
                "imagePullPolicy": settings["imagePullPolicy"],
                "resources": {"requests": requests, "limits": limits},
                "env": env,
                "volumeMounts": mounts,
                "securityContext": {
                    "runAsUser": int(context["runAsUser"]),
                    "runAsGroup": int(context["runAsGroup"]),
                    "runAsNonRoot": context["runAsNonRoot"],
                },
            }
        ],
    }
    if "activeDeadlineSeconds" in settings:
        pod["activeDeadlineSeconds"] = int(settings["activeDeadlineSeconds"])
    return pod
