"""Kubeflow's cache, played on a compiled package.

Every step gets the key that the driver of Kubeflow Pipelines 2.17 computes (backend/src/v2/cacheutils): ids of its
input artifacts, values of its parameters, names and types of its outputs, its image with command and arguments, and its
claims. A step whose key is known, and which may be cached, gets the outputs of the earlier one; otherwise it is done,
and its artifacts get new ids.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tamis_pipelines.workflow.size import Package
from tamis_pipelines.workflow.values import Ir, inputs_of, items_of, parameters_of

Values = dict[tuple[str, str], Any]
Do = Callable[["Step"], dict[str, Any]]


class Step:
    """A step of a run: its name, the values of its parameters, the URIs of its inputs and outputs."""

    def __init__(self, name: str, parameters: Mapping[str, Any], inputs: Mapping[str, list[str]], place: str) -> None:
        self.name, self.parameters, self.inputs, self.place = name, parameters, inputs, place

    def output(self, name: str) -> str:
        return f"{self.place}/{name}"


class Cluster:
    """A cluster with Kubeflow, whose cache lasts from run to run; artifacts are below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._cache: dict[str, dict[str, str]] = {}
        self._ids = itertools.count(1)
        self._names: dict[str, str] = {}  # id of each artifact by its URI
        self.parameters: list[Ir] = []  # of every step of every run

    def run(self, package: Package, arguments: Mapping[str, Any], do: Do) -> dict[str, str]:
        """Run a package; `do` does a step and returns its output parameters.

        Returns:
            The key of every step, by name and, in loops, the number of the item.
        """
        run = _Run(self, package, f"{self.root}/{package.ir['pipelineInfo']['name']}/{uuid.uuid4()}", do)
        run.dag(package.ir["root"], parameters_of(package.ir, arguments), {}, "")
        return run.keys

    def id_of(self, uri: str) -> str:
        return self._names[uri]

    def outputs(self, key: str, names: list[str], place: str, *, cached: bool) -> tuple[dict[str, str], bool]:
        """The URIs of a step's artifacts, and whether they come from the cache."""
        if cached and key in self._cache:
            return self._cache[key], True
        made = {name: f"{place}/{name}" for name in names}
        self._names |= {uri: str(next(self._ids)) for uri in made.values()}
        self._cache |= {key: made} if cached else {}
        return made, False


class _Run:
    def __init__(self, cluster: Cluster, package: Package, folder: str, do: Do) -> None:
        self._cluster, self._package, self._folder, self._do = cluster, package, folder, do
        self.keys: dict[str, str] = {}

    def dag(self, component: Ir, given: Mapping[str, Any], taken: Mapping[str, list[str]], item: str) -> Values:
        """Run a DAG with parameters and artifacts from outside; returns the URIs of its artifacts."""
        values: Values = {}
        artifacts: dict[tuple[str, str], list[str]] = {}
        left = dict(component["dag"]["tasks"])
        while left:
            name = next(name for name, task in left.items() if not {*task.get("dependentTasks", ())} & {*left})
            task = left.pop(name)
            of_task = self._package.ir["components"][task["componentRef"]["name"]]
            parameters = inputs_of(task, given, values)
            inputs = {key: _artifacts(one, taken, artifacts) for key, one in _given(task, "artifacts").items()}
            if "dag" not in of_task:
                made, told = self._step(name, task, of_task, parameters, inputs, item)
                artifacts |= {(name, key): [uri] for key, uri in made.items()}
                values |= {(name, key): value for key, value in told.items()}
                continue
            items = items_of(task, parameters)
            each = [(parameters, item)]
            if items is not None:
                variable = task["parameterIterator"]["itemInput"]
                each = [({**parameters, variable: one}, f" {number}") for number, one in enumerate(items)]
            for own, number in each:
                for (_, key), uris in self.dag(of_task, own, inputs, number).items():
                    artifacts.setdefault((name, key), []).extend(uris)
        outputs = component["dag"].get("outputs", {}).get("artifacts", {})
        return {
            ("", key): [
                uri
                for one in of["artifactSelectors"]
                for uri in artifacts[one["producerSubtask"], one["outputArtifactKey"]]
            ]
            for key, of in outputs.items()
        }

    def _step(
        self, name: str, task: Ir, component: Ir, parameters: Ir, inputs: dict[str, list[str]], item: str
    ) -> tuple[dict[str, str], dict[str, Any]]:
        self._cluster.parameters.append(parameters)
        label = component["executorLabel"]
        container = self._package.ir["deploymentSpec"]["executors"][label]["container"]
        outputs = component.get("outputDefinitions", {})
        known = {
            "inputArtifactNames": {key: [self._cluster.id_of(uri) for uri in uris] for key, uris in inputs.items()},
            "inputParameterValues": parameters,
            "outputArtifactsSpec": outputs.get("artifacts", {}),
            "outputParametersSpec": outputs.get("parameters", {}),
            "image": container["image"],
            "cmdArgs": [*container["command"], *container["args"]],
            "pvcNames": [claim["pvcNameParameter"] for claim in self._package.platform[label].get("pvcMount", [])],
        }
        key = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
        self.keys[f"{name}{item}"] = key
        place = f"{self._folder}/{name}/{uuid.uuid4()}"
        cached = bool(task.get("cachingOptions", {}).get("enableCache"))
        made, reused = self._cluster.outputs(key, [*outputs.get("artifacts", {})], place, cached=cached)
        return made, {} if reused else self._do(Step(name, parameters, inputs, place))


def _given(task: Ir, kind: str) -> Ir:
    found: Ir = task.get("inputs", {}).get(kind, {})
    return found


def _artifacts(source: Ir, taken: Mapping[str, list[str]], made: Mapping[tuple[str, str], list[str]]) -> list[str]:
    if "componentInputArtifact" in source:
        return taken[source["componentInputArtifact"]]
    one = source["taskOutputArtifact"]
    return made[one["producerTask"], one["outputArtifactKey"]]
