"""The size of a run's Argo workflow, for which there is a limit."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tamis_pipelines.workflow.figures import (
    LOOP,
    MOST_ARGUMENT,
    MOST_BYTES,
    NESTED,
    PACKED,
    PARAMETER,
    SPEC,
    STEP,
    TEMPLATE,
)
from tamis_pipelines.workflow.nodes import Run
from tamis_pipelines.workflow.patches import text
from tamis_pipelines.workflow.values import Ir, parameters_of

ROOM = 0.9  # share of a limit that a run may use: estimates are within 6 % of recorded workflows


@dataclass(frozen=True)
class Size:
    """How large a run becomes.

    Attributes:
        spec: bytes of the workflow's spec.
        status: bytes of its packed nodes at the end of a run that succeeds.
        argument: bytes of the longest argument of a pod's command.
        pods: pods of the run, drivers too.
        sequence: the longest chain of pods that wait for each other; each takes some ten seconds, whatever it does.
        levels: nodes inside each other, at most.
    """

    spec: int
    status: int
    argument: int
    pods: int
    sequence: int
    levels: int

    @property
    def bytes(self) -> int:
        """Bytes of the workflow."""
        return self.spec + self.status

    @property
    def fits(self) -> bool:
        """Whether it stays below the limits of a workflow and of an argument, with room for errors of the estimate."""
        return self.bytes <= ROOM * MOST_BYTES and self.argument <= ROOM * MOST_ARGUMENT


@dataclass(frozen=True)
class Package:
    """A compiled pipeline: its intermediate representation, and what kfp-kubernetes says of pods, by executor."""

    ir: Ir
    platform: Ir

    @classmethod
    def read(cls, package: Path) -> Package:
        """Read the package that `tamis compile` has written."""
        ir, platform = yaml.load_all(package.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return cls(ir, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"])

    def size(self, arguments: Mapping[str, Any]) -> Size:
        """The size of the workflow that Kubeflow makes of it in a run with `arguments`."""
        nodes = Run(self.ir, self.platform, arguments).play()
        packed = base64.b64encode(gzip.compress(text(dict(sorted(nodes.made.items()))).encode(), 6))
        levels = max(str(node["name"]).count(".") + 1 for node in nodes.made.values())
        spec = _spec(self.ir, self.platform, arguments)
        return Size(spec, round(PACKED * len(packed)), nodes.longest_argument, nodes.pods, nodes.sequence, levels)


def size_of(package: Path, arguments: Mapping[str, Any]) -> Size:
    """The size of the workflow that Kubeflow makes of a compiled package in a run with `arguments`."""
    return Package.read(package).size(arguments)


def _spec(ir: Ir, platform: Ir, arguments: Mapping[str, Any]) -> int:
    """Bytes of the spec: every component, its pod, and every task are texts in it."""
    components, executors = ir["components"], ir["deploymentSpec"]["executors"]
    texts = {text(component) for component in components.values()} | {text(ir["root"])}
    texts |= {text(executor["container"]) for executor in executors.values()}
    configs = [text(one) for one in platform.values()]
    bytes_ = sum(_quoted(one) + PARAMETER for one in (*texts, *configs))
    for component in (ir["root"], *components.values()):
        if "dag" not in component:
            continue
        bytes_ += TEMPLATE
        for task in component["dag"]["tasks"].values():
            if "parameterIterator" in task:  # in the templates of the loop and of its items
                bytes_ += LOOP + 2 * _quoted(text(task))
            elif "dag" in components[task["componentRef"]["name"]]:
                bytes_ += NESTED + _quoted(text(task))
            else:
                bytes_ += STEP + _quoted(text(task))
    return bytes_ + SPEC + _quoted(text({"parameterValues": parameters_of(ir, arguments)}))


def _quoted(value: str) -> int:
    """Bytes of a text within JSON."""
    return len(text(value).encode()) - 2
