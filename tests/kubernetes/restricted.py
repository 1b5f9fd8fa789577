"""The `restricted` Pod Security Standard (Kubernetes 1.37), and the house's own rules for pods, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.kubernetes.objects import containers

Pod = dict[str, Any]

_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}
_SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def violations(pod: Pod) -> list[str]:
    """What the `restricted` standard has against a pod's spec."""
    return [*_of_pod(pod), *(text for container in containers(pod) for text in _of_container(pod, container))]


def _of_pod(pod: Pod) -> Iterator[str]:
    context = pod.get("securityContext", {})
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield f"{field} is set"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "hostProcess is set"
    for volume in pod.get("volumes", []):
        for kind in set(volume) - {"name"} - _VOLUMES:
            yield f"volume {volume['name']} is of kind {kind}"
    for sysctl in context.get("sysctls", []):
        if sysctl["name"] not in _SYSCTLS:
            yield f"sysctl {sysctl['name']}"


def _of_container(pod: Pod, container: dict[str, Any]) -> Iterator[str]:
    own, of_pod, who = container.get("securityContext", {}), pod.get("securityContext", {}), container["name"]
    either = of_pod | own
    if own.get("privileged"):
        yield f"{who} is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{who} may escalate privileges"
    capabilities = own.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"]:
        yield f"{who} does not drop all capabilities"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{who} adds capabilities"
    if either.get("runAsNonRoot") is not True:
        yield f"{who} may run as root"
    if 0 in (of_pod.get("runAsUser"), own.get("runAsUser")):
        yield f"{who} runs as user 0"
    if either.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield f"{who} has no seccomp profile"
    if either.get("appArmorProfile", {}).get("type", "RuntimeDefault") == "Unconfined":
        yield f"{who} is not confined by AppArmor"
    for options in (of_pod.get("seLinuxOptions", {}), own.get("seLinuxOptions", {})):
        if options.get("type", "") not in _SELINUX_TYPES or options.get("user") or options.get("role"):
            yield f"{who} sets SELinux options"
    if own.get("procMount", "Default") != "Default":
        yield f"{who} changes /proc"
    for port in container.get("ports", []):
        if port.get("hostPort"):
            yield f"{who} uses a port of the host"
    handlers = [container.get(probe, {}) for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
    handlers += list(container.get("lifecycle", {}).values())
    for handler in handlers:
        if any(handler.get(kind, {}).get("host") for kind in ("httpGet", "tcpSocket")):
            yield f"{who} probes another host"


def house_rules(pod: Pod) -> Iterator[str]:
    """What Tamis asks beyond the standard."""
    if pod.get("automountServiceAccountToken") is not False:
        yield "a token of the service account is mounted"
    if pod.get("enableServiceLinks") is not False:
        yield "service links set variables such as VLLM_PORT"
    if not pod.get("serviceAccountName"):
        yield "no service account is named"
    if not isinstance(pod.get("securityContext", {}).get("fsGroup"), int):
        yield "no fsGroup: volumes may belong to root"
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    for container in containers(pod):
        who, resources = container["name"], container.get("resources", {})
        if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
            yield f"{who} has a writable root"
        for resource in ("cpu", "memory", "ephemeral-storage"):
            if resource not in resources.get("requests", {}):
                yield f"{who} requests no {resource}"
        for resource in ("memory", "ephemeral-storage"):
            if resource not in resources.get("limits", {}):
                yield f"{who} has no limit of {resource}"
        if container.get("terminationMessagePolicy") != "FallbackToLogsOnError":
            yield f"{who} leaves no reason in its status"
        image = container["image"].rsplit("/", 1)[-1]
        if "@sha256:" not in image and (":" not in image or image.endswith(":latest")):
            yield f"{who}: the image {container['image']} has no version"
        mounted = [mount["name"] for mount in container.get("volumeMounts", [])]
        for name in mounted:
            if name not in volumes:
                yield f"{who} mounts {name}, which is no volume"
        paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
        if len(paths) != len(set(paths)):
            yield f"{who} mounts two volumes at one place"
        if "/tmp" not in paths:
            yield f"{who} has no writable /tmp"
    unused = volumes - {mount["name"] for c in containers(pod) for mount in c.get("volumeMounts", [])}
    for name in sorted(unused):
        yield f"no container mounts the volume {name}"
