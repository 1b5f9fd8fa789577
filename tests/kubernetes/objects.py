"""Looking into Kubernetes objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]


def name_of(document: Object) -> str:
    """Kind and name, as in "Job/tamis-pool"."""
    return f"{document['kind']}/{document['metadata']['name']}"


def by_name(documents: list[Object]) -> dict[str, Object]:
    """Objects by kind and name; each may be there once."""
    names = [name_of(document) for document in documents]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice, f"made twice: {twice}"
    return dict(zip(names, documents, strict=True))


def pods(document: Any) -> Iterator[Object]:
    """Every pod's spec inside an object, however deep: in a Pod, Job, Deployment, TrainingRuntime.

    The claims that a StatefulSet makes for its pod are among the pod's volumes.
    """
    if isinstance(document, dict):
        if claims := document.get("volumeClaimTemplates"):
            for pod in pods(document["template"]):
                volumes = [{"name": claim["metadata"]["name"], "ephemeral": {}} for claim in claims]
                yield pod | {"volumes": [*pod.get("volumes", []), *volumes]}
            return
        if isinstance(document.get("containers"), list):
            yield document
        for value in document.values():
            yield from pods(value)
    elif isinstance(document, list):
        for value in document:
            yield from pods(value)


def containers(pod: Object) -> list[Object]:
    """All containers of a pod, those that come first too."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def references(pod: Object) -> Iterator[tuple[str, bool]]:
    """What a pod needs from its namespace, as in ("ConfigMap/tamis-environment", must be there)."""
    if account := pod.get("serviceAccountName"):
        yield f"ServiceAccount/{account}", True
    for secret in pod.get("imagePullSecrets", []):
        yield f"Secret/{secret['name']}", True
    for volume in pod.get("volumes", []):
        if claim := volume.get("persistentVolumeClaim"):
            yield f"PersistentVolumeClaim/{claim['claimName']}", True
        if config := volume.get("configMap"):
            yield f"ConfigMap/{config['name']}", True
        if secret := volume.get("secret"):
            yield f"Secret/{secret['secretName']}", True
    for container in containers(pod):
        for source in container.get("envFrom", []):
            if config := source.get("configMapRef"):
                yield f"ConfigMap/{config['name']}", not config.get("optional", False)
            if secret := source.get("secretRef"):
                yield f"Secret/{secret['name']}", not secret.get("optional", False)
        for variable in container.get("env", []):
            if secret := variable.get("valueFrom", {}).get("secretKeyRef"):
                yield f"Secret/{secret['name']}", True


def environment(container: Object, config_maps: dict[str, Object]) -> dict[str, str]:
    """The plain values of a container's environment variables, those from ConfigMaps too."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        if config := source.get("configMapRef"):
            found |= config_maps.get(f"ConfigMap/{config['name']}", {}).get("data", {})
    return found | {item["name"]: item["value"] for item in container.get("env", []) if "value" in item}
