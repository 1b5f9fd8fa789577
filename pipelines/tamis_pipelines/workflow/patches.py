"""The text by which a driver of Kubeflow describes a step's pod, and which Argo keeps in six of the step's nodes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tamis_pipelines.workflow.figures import LAUNCHER, STORE
from tamis_pipelines.workflow.values import Ir

_RUN = "00000000-0000-4000-8000-000000000000"


def text(value: Any) -> str:
    """JSON as Kubeflow writes it."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def unique(name: str) -> str:
    """A text as long and as hard to compress as a UUID, which is the same for the same name."""
    digits = hashlib.sha256(name.encode()).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:32]}"


def executor_input(
    where: str, component: Ir, parameters: Mapping[str, Any], artifacts: Mapping[str, Sequence[str]], pipeline: str
) -> str:
    """What a step is given, which Kubeflow hands to its pod as one argument of a command.

    Args:
        where: the step's place in the run, unlike that of any other.
        component: its component.
        parameters: values of its parameters.
        artifacts: for each input, the places of the artifacts that it gets.
        pipeline: the pipeline's name.
    """
    root = f"s3://mlpipeline/v2/artifacts/{pipeline}/{_RUN}"
    task = where.rsplit(".", 1)[-1]
    given = {
        name: {"artifacts": [_artifact(root, place, name) for place in places]} for name, places in artifacts.items()
    }
    place = f"{root}/{task}/{unique(where)}"
    made = {
        name: {"artifacts": [{"name": name, "type": one["artifactType"], "uri": f"{place}/{name}"}]}
        for name, one in _outputs(component).items()
    }
    outputs = {"artifacts": made, "outputFile": f"/{place}/output_metadata.json"}
    return text({"inputs": {"artifacts": given, "parameterValues": dict(parameters)}, "outputs": outputs})


def _outputs(component: Ir) -> Ir:
    logs = {"executor-logs": {"artifactType": {"schemaTitle": "system.Artifact"}}}
    made: Ir = component.get("outputDefinitions", {}).get("artifacts", {})
    return made | logs


def _artifact(root: str, where: str, name: str) -> Ir:
    content = hashlib.sha256(where.encode()).hexdigest()
    known = {"content_hash": content, "display_name": name, "kind": name, "name": name, "rows": 1000}
    uri = f"{root}/{name}/{unique(where)}/{name}"
    return {"name": content[:4], "uri": uri, "metadata": known | {"store_session_info": STORE}}


def patch(component: Ir, container: Ir, platform: Ir, given: str) -> str:
    """The patch of a step's pod.

    Args:
        component: the step's component.
        container: image, command and resources.
        platform: what kfp-kubernetes says of the pod.
        given: the step's `executor_input`.
    """
    env = list(container.get("env", []))
    for config in platform.get("configMapAsEnv", []):
        env += [_from(config, "configMapName", "configMapKeyRef", pair["configMapKey"]) for pair in config["keyToEnv"]]
    for secret in platform.get("secretAsEnv", []):
        env += [_from(secret, "secretName", "secretKeyRef", pair["secretKey"]) for pair in secret["keyToEnv"]]
    volumes, mounts = [], []
    for empty in platform.get("emptyDirMounts", []):
        volumes.append({"name": empty["volumeName"], "emptyDir": {}})
        mounts.append({"name": empty["volumeName"], "mountPath": empty["mountPath"]})
    for config in platform.get("configMapAsVolume", []):
        name = _name(config, "configMapName")
        volumes.append({"name": name, "configMap": {"name": name, "optional": True}})
        mounts.append({"name": name, "mountPath": config["mountPath"]})
    for claim in platform.get("pvcMount", []):
        name = _name(claim, "pvcName")
        volumes.append({"name": name, "persistentVolumeClaim": {"claimName": name}})
        mounts.append({"name": name, "mountPath": claim["mountPath"]})
    spec = {
        "name": "main",
        "image": container.get("image", ""),
        "command": [*LAUNCHER, "--executor_input", given, "--component_spec", text(component)],
        "args": [*container.get("command", []), *container.get("args", [])],
        "env": env,
        "resources": {"limits": {"memory": "16Gi"}, "requests": {"cpu": "2", "memory": "16Gi"}},
        "volumeMounts": mounts,
        "securityContext": {"runAsUser": 10001, "runAsGroup": 10001, "runAsNonRoot": True},
    }
    return text({"volumes": volumes, "containers": [spec], "activeDeadlineSeconds": 86400})


def _name(source: Ir, kind: str) -> str:
    given = source.get(f"{kind}Parameter", {})
    return str(given.get("runtimeValue", {}).get("constant") or source.get(kind) or "tamis-object")


def _from(source: Ir, kind: str, reference: str, key: str) -> Ir:
    return {"name": key, "valueFrom": {reference: {"name": _name(source, kind), "key": key, "optional": True}}}
