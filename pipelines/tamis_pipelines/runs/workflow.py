"""The Argo workflow of a run, as v1beta1 of the API returns it: JSON text, with nodes that may be packed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from tamis.cluster.workflow import is_stopped, nodes_of

Node = dict[str, Any]
PREFIX = "pipelinechannel--"  # kfp's, before the name of what a task takes from elsewhere
_ATTEMPT = re.compile(r"^(.*)\((\d+)\)$")
_ITERATION = re.compile(r"^(.*)\((\d+):.*\)$")
_LONGEST_PREFIX = 242  # of a pod's name, in Argo


class UnreadableError(Exception):
    """The manifest cannot be used; the text says why."""


class Place(NamedTuple):
    """Where a node is in the workflow.

    Attributes:
        key: the names from the workflow's root to the node, without the workflow's own.
        iteration: the numbers of the iterations of the loops on that way, outermost first.
        attempts: the number of the attempt of each name in `key`, from 0; -1 for a node that stands for all attempts.
    """

    key: tuple[str, ...]
    iteration: tuple[int, ...]
    attempts: tuple[int, ...]


@dataclass(frozen=True)
class Workflow:
    """A workflow.

    Attributes:
        name: the name of the object in Kubernetes, with which the names of pods begin.
        namespace: the namespace of the object and its pods.
        message: what Argo says about the whole workflow; empty most of the time.
        stopped: whether somebody ended it.
        nodes: every node with its place.
        templates: the templates by name.
        entrypoint: the name of the first template.
        pods_named_by_id: whether pods have the ids of their nodes as names, as older versions of Argo do.
    """

    name: str
    namespace: str
    message: str
    stopped: bool
    nodes: list[tuple[Place, Node]]
    templates: dict[str, dict[str, Any]]
    entrypoint: str
    pods_named_by_id: bool

    @classmethod
    def parse(cls, text: str) -> Workflow:
        """Read a manifest.

        Raises:
            UnreadableError: when it is not a manifest, or its nodes are kept elsewhere.
        """
        try:
            manifest = json.loads(text)
            metadata, spec, status = manifest["metadata"], manifest["spec"], manifest.get("status") or {}
            nodes = nodes_of(manifest)
            if status.get("offloadNodeStatusVersion"):
                raise UnreadableError("the workflow's nodes are in Argo's database, not in its manifest")
            return cls(
                name=metadata["name"],
                namespace=metadata.get("namespace") or "kubeflow",
                message=status.get("message") or "",
                stopped=is_stopped(manifest),
                nodes=[(place_of(node["name"]), node) for node in nodes.values()],
                templates={template["name"]: template for template in spec.get("templates") or []},
                entrypoint=spec.get("entrypoint") or "entrypoint",
                pods_named_by_id=_annotations(metadata).get("workflows.argoproj.io/pod-name-format") == "v1",
            )
        except (ValueError, KeyError, TypeError, AttributeError, OSError, EOFError) as error:
            raise UnreadableError(
                f"the workflow's manifest cannot be read ({type(error).__name__}: {error})"
            ) from error

    def parameters(self) -> dict[str, Any]:
        """The arguments of the run, by the pipeline's parameters; empty where the manifest does not have them."""
        for template in self.templates.values():
            for task in tasks_in(template):
                if config := argument(task, "runtime-config"):
                    values = config.get("parameterValues") or config.get("parameters") or {}
                    return dict(values)
        return {}

    def pod_of(self, node: Node) -> str:
        """The name of the pod that a node of the type Pod is."""
        if self.pods_named_by_id:
            return str(node["id"])
        prefix, number = f"{self.name}-{node['templateName']}", str(node["id"]).rpartition("-")[2]
        return f"{prefix[:_LONGEST_PREFIX]}-{number}"


def _annotations(metadata: dict[str, Any]) -> dict[str, str]:
    return metadata.get("annotations") or {}


def place_of(name: str) -> Place:
    """The place that a node's full name says, as in `run-x(0).root(0).for-loop-2(0).iteration-iterations(1:1)(0)`."""
    key, iteration, attempts = [], [], []
    for part in name.split(".")[1:]:
        found = _ATTEMPT.match(part)
        part, number = (found[1], int(found[2])) if found else (part, -1)
        if loop := _ITERATION.match(part):
            iteration.append(int(loop[2]))
            continue
        if part == "iteration-iterations":
            continue  # what holds all iterations
        key.append(part)
        attempts.append(number)
    return Place(tuple(key), tuple(iteration), tuple(attempts))


def tasks_in(template: dict[str, Any]) -> list[dict[str, Any]]:
    """The tasks of a template; empty where it is a pod."""
    return (template.get("dag") or {}).get("tasks") or []


def argument(task: dict[str, Any], name: str) -> dict[str, Any]:
    """An argument of a task that is a JSON object; empty where there is none."""
    for parameter in (task.get("arguments") or {}).get("parameters") or []:
        if parameter["name"] == name:
            try:
                value = json.loads(parameter.get("value") or "{}")
            except ValueError:
                return {}  # a reference, which Argo fills in
            return value if isinstance(value, dict) else {}
    return {}


def output(node: Node, name: str) -> str:
    """An output parameter of a node; empty where there is none."""
    for parameter in (node.get("outputs") or {}).get("parameters") or []:
        if parameter["name"] == name:
            return str(parameter.get("value") or "")
    return ""
