"""What Argo's workflow knows of a run: whether it was ended by hand, and the messages of pods that failed.

This is a second source beside the steps' own marks. It also has what no step could write: of pods that were killed, and
of steps without credentials for any storage. A pod reads it with its service account, which needs the right to get
workflows; where that is missing, the marks must do.
"""

from __future__ import annotations

import base64
import gzip
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tamis.core.marks import LastWords
from tamis.kubeflow import RUNNER_PID

log = logging.getLogger(__name__)
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT = (5.0, 30.0)  # seconds to connect, and to read
_ATTEMPT = re.compile(r"(?P<retried>.*)\((?P<number>\d+)\)$")  # a pod's name: of its Retry node, and the attempt
_ITERATION = re.compile(r"iteration-iterations\((\d+):")
_BEFORE_WORDS = re.compile(r"^main: (?:Error \(exit code \d+\): )?")  # Argo's, before a pod's own last words
_EXIT_HANDLER = ".onExit("
_STEPS = re.compile(r"\.exit-handler-1\(\d+\)$")  # the node of all steps before the last one


@dataclass(frozen=True)
class Witness:
    """What a workflow says before its last step.

    Attributes:
        stopped: whether it was ended by hand.
        complete: whether every step before the last one was successful.
        failed: the steps that failed, with their last words.
    """

    stopped: bool
    complete: bool
    failed: tuple[LastWords, ...]


def ask(workflow: str) -> Witness | None:
    """Read the workflow of this name in this pod's namespace; None if that is not possible, which is logged.

    A local run has no workflow, even in a pod.
    """
    if "KUBERNETES_SERVICE_HOST" not in os.environ or RUNNER_PID in os.environ:
        return None
    from kubernetes import client, config
    from urllib3.exceptions import HTTPError

    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
        namespace = (_ACCOUNT / "namespace").read_text().strip()
        objects = client.CustomObjectsApi(client.ApiClient(configuration))
        found = objects.get_namespaced_custom_object(
            "argoproj.io", "v1alpha1", namespace, "workflows", workflow, _request_timeout=_TIMEOUT
        )
    except (config.ConfigException, client.ApiException, HTTPError, OSError) as error:
        said = f"{error.status} {error.reason}" if isinstance(error, client.ApiException) else str(error)
        log.info("the workflow %s cannot be read (%s); the outcome is by the marks of the steps", workflow, said)
        return None
    try:
        return read(found)
    except (LookupError, TypeError, ValueError, AttributeError, OSError, EOFError) as error:
        log.warning(
            "the workflow %s has an unknown form (%s: %s); the outcome is by the marks of the steps",
            workflow, type(error).__name__, error,
        )  # fmt: skip
        return None


def read(workflow: Mapping[str, Any]) -> Witness:
    """What a workflow object says. Its exit handler, and pods that were successful in a later attempt, do not count."""
    stopped, nodes = is_stopped(workflow), nodes_of(workflow)
    phases = {node["name"]: node.get("phase") for node in nodes.values()}
    failed: dict[str, LastWords] = {}
    for node in sorted(nodes.values(), key=lambda node: str(node.get("finishedAt") or "")):
        name, message = node["name"], node.get("message") or ""
        if node.get("type") != "Pod" or node.get("phase") not in ("Failed", "Error") or _EXIT_HANDLER in name:
            continue
        found = _ATTEMPT.match(name)
        retried, number = (found["retried"], int(found["number"])) if found else (name, 0)
        if phases.get(retried) == "Succeeded" or (stopped and "deadline" in message):
            continue
        iterations = _ITERATION.findall(name)
        failed[retried] = LastWords(
            step=_step_of(retried),
            what=f"item {iterations[-1]} of its loop" if iterations else "",
            attempt=number + 1,
            words=_BEFORE_WORDS.sub("", message) or "the pod failed without a message",
            at=str(node.get("finishedAt") or ""),
        )
    complete = any(phase == "Succeeded" for name, phase in phases.items() if _STEPS.search(name))
    return Witness(stopped, complete, tuple(failed.values()))


def is_stopped(workflow: Mapping[str, Any]) -> bool:
    """Whether somebody ended it. Kubeflow does so by a deadline of 0 seconds, Argo's own command line by `shutdown`."""
    spec = workflow.get("spec", {})
    return spec.get("activeDeadlineSeconds") == 0 or bool(spec.get("shutdown"))


def nodes_of(workflow: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The nodes of a workflow, by id. Argo compresses them when they are large."""
    status = workflow.get("status", {})
    if packed := status.get("compressedNodes"):
        nodes: dict[str, dict[str, Any]] = json.loads(gzip.decompress(base64.b64decode(packed)))
        return nodes
    return status.get("nodes") or {}


def _step_of(retried: str) -> str:
    """The step of a pod, by the name of its Retry node: ….pool(0).executor and ….pool-driver are of the step "pool"."""
    *before, last = retried.split(".")
    step = before[-1] if last == "executor" and before else last
    return re.sub(r"\(\d+\)$", "", step).removesuffix("-driver")
