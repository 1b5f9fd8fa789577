"""Checks the claims that pods on a cluster mount: whether they are there, and whether pods can write to them."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from tamis_pipelines.checks.check import Check
from tamis_pipelines.pods import USER
from tamis_pipelines.settings import RunSettings

_SECONDS = 30.0
_WITHOUT = {
    "kubeflow.objects.model_cache": "kubeflow.compiled.model_cache=false",
    "kubeflow.objects.work": "kubeflow.compiled.work_volume=false",
}
_OWNER = re.compile(r"^(uid|gid)=(\d+)$")  # mount options of file systems without owners of their own
_GROUP_OF_VOLUME = "pv.beta.kubernetes.io/gid"  # annotation: a group that Kubernetes gives to pods with this volume


def claims(settings: RunSettings, namespace: str) -> Iterator[Check]:
    """Check each claim that the pods of a run mount, with the current context of the kubeconfig.

    Only a pod can see who owns the files of a volume. The check uses what the objects say about it.
    """
    names, compiled = settings.kubeflow.objects, settings.compiled
    mounted = {"model_cache": names.model_cache} if compiled.model_cache else {}
    mounted |= {"work": names.work} if compiled.work_volume else {}
    if not mounted:
        return
    try:
        objects = _Objects(namespace)
    except _NoClusterError as error:
        seen = f"{' and '.join(mounted.values())} not checked, because no kubeconfig can be used ({error})"
        yield Check("kubeflow.objects", "note", seen, "set KUBECONFIG to check that the claims exist")
        return
    from urllib3.exceptions import InsecureRequestWarning

    with warnings.catch_warnings():
        # A kubeconfig that does not check the server's certificate says so itself.
        warnings.simplefilter("ignore", InsecureRequestWarning)
        yield from [_check(objects, f"kubeflow.objects.{setting}", name) for setting, name in mounted.items()]


def _check(objects: _Objects, where: str, name: str) -> Check:
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        claim = objects.claim(name)
    except HTTPError as error:
        return Check(where, "note", f"{name} not checked: the cluster does not answer ({type(error).__name__})")
    except ApiException as error:
        if error.status == 404:
            seen = f"the namespace {objects.namespace} has no claim {name}, so pods cannot start"
            return Check.of(where, False, seen, f"create it, set {where}, or do not mount it ({_WITHOUT[where]})")
        return Check(where, "note", f"{name} not checked: {error.status} {error.reason}")
    if claim.status.phase != "Bound":
        return Check(where, "note", f"{name} has no volume yet ({claim.status.phase}); the first pod may give it one")
    volume, parameters, unread = objects.volume_of(claim)
    modes = list(claim.spec.access_modes or [])
    if modes == ["ReadOnlyMany"] or _read_only(volume):
        action = "put all models into it before the run, because pods cannot download into it"
        return Check(where, "note", f"{name} is read-only", action)
    seen, owners = f"{name} ({', '.join(modes)})", _owners(volume, parameters)
    stated = ", ".join(f"{kind} {number}" for kind, number in owners.items())
    if str(USER) in owners.values():
        return Check(where, "ok", f"{seen}: pods can write to it ({stated})")
    if owners:
        action = f"change the owner to {USER}; until then pods can only read it"
        return Check(where, "note", f"{seen}: its files have {stated}, but pods run as user and group {USER}", action)
    why = f" ({unread})" if unread else ""
    action = f"if it belongs to root, change the owner to {USER}: Kubeflow's pods run without fsGroup"
    return Check(where, "note", f"{seen}: only a pod can see who owns its files{why}", action)


def _read_only(volume: Mapping[str, Any]) -> bool:
    """Whether the volume's source says so; each kind of source has the field `readOnly`."""
    return any(isinstance(source, dict) and source.get("readOnly") for source in volume.get("spec", {}).values())


def _owners(volume: Mapping[str, Any], class_parameters: Mapping[str, str]) -> dict[str, str]:
    """The user and the group of the volume's files, as far as its objects say."""
    found = {kind: class_parameters[kind] for kind in ("uid", "gid") if kind in class_parameters}
    for option in volume.get("spec", {}).get("mountOptions") or []:
        if owner := _OWNER.match(option):
            found[owner[1]] = owner[2]
    if group := (volume.get("metadata", {}).get("annotations") or {}).get(_GROUP_OF_VOLUME):
        found["gid"] = group
    return found


class _NoClusterError(Exception):
    """There is no kubeconfig that can be used."""


class _Objects:
    """Claims and volumes of a cluster."""

    def __init__(self, namespace: str) -> None:
        from kubernetes import client, config

        self.namespace = namespace
        configuration = client.Configuration()
        configuration.retries = 0
        try:
            config.load_kube_config(os.environ.get("KUBECONFIG"), client_configuration=configuration)
        except (config.ConfigException, OSError) as error:
            raise _NoClusterError(str(error).splitlines()[0]) from None
        self._api = client.ApiClient(configuration)
        self._core, self._storage = client.CoreV1Api(self._api), client.StorageV1Api(self._api)

    def claim(self, name: str) -> Any:
        return self._core.read_namespaced_persistent_volume_claim(name, self.namespace, _request_timeout=_SECONDS)

    def volume_of(self, claim: Any) -> tuple[dict[str, Any], dict[str, str], str]:
        """The volume as JSON, the parameters of its storage class, and why these cannot be read, if so."""
        from kubernetes.client import ApiException

        volume: dict[str, Any] = {}
        parameters: dict[str, str] = {}
        try:
            found = self._core.read_persistent_volume(claim.spec.volume_name, _request_timeout=_SECONDS)
            volume = self._api.sanitize_for_serialization(found)
            if name := claim.spec.storage_class_name:
                parameters = self._storage.read_storage_class(name, _request_timeout=_SECONDS).parameters or {}
        except ApiException as error:
            # A volume may be of a class that has no object, and an account may not be allowed to read either.
            return volume, parameters, "" if volume and error.status == 404 else f"{error.status} {error.reason}"
        return volume, parameters, ""
