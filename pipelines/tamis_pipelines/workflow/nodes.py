"""The nodes that Argo keeps of a run: every step and every loop leaves several, with all that its pods were given."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tamis_pipelines.workflow.figures import NODE
from tamis_pipelines.workflow.patches import executor_input, patch, text
from tamis_pipelines.workflow.values import Ir, inputs_of, items_of, outputs_of, parameters_of

_LAST = "ALL_UPSTREAM_TASKS_COMPLETED"  # the trigger of the step that runs whatever happened


@dataclass
class Nodes:
    """All nodes of a run by their ids.

    Attributes:
        made: the nodes.
        pods: how many of them are pods, drivers too.
        sequence: the longest chain of pods that wait for each other.
        longest_argument: characters of the longest argument of a pod's command.
    """

    made: dict[str, Ir] = field(default_factory=dict)
    pods: int = 0
    sequence: int = 0
    longest_argument: int = 0


class Run:
    """Makes the nodes of a run with `arguments` of a compiled pipeline: `ir`, and `platform` by executor."""

    def __init__(self, ir: Ir, platform: Ir, arguments: Mapping[str, Any]) -> None:
        self._ir, self._platform = ir, platform
        self._pipeline: str = ir["pipelineInfo"]["name"]
        self._parameters = parameters_of(ir, arguments)
        self.nodes = Nodes()

    def play(self) -> Nodes:
        """Make all nodes, as they are at the end of a run that succeeds."""
        name = f"{self._pipeline}-00000"
        config = text({"parameterValues": self._parameters})
        self._pair(name, "entrypoint", {})
        given = {"component": text(self._ir["root"]), "runtime-config": config, "driver-type": "ROOT_DAG"}
        self._driver(f"{name}(0).root-driver", "system-dag-driver", given)
        self._pair(f"{name}(0).root", "root", {"parent-dag-id": "240"})
        self.nodes.sequence = 1 + self._dag(f"{name}(0).root(0)", self._ir["root"], self._parameters)
        return self.nodes

    def _dag(self, where: str, component: Ir, given: Mapping[str, Any]) -> int:
        """Make the nodes of all tasks of a DAG with the parameters `given`; returns its longest chain of pods."""
        ended: dict[str, int] = {}
        outputs: dict[tuple[str, str], Any] = {}
        items_by_loop: dict[str, int] = {}
        for name, task in _in_order(component["dag"]["tasks"]):
            inputs = inputs_of(task, given, outputs)
            of_task = self._ir["components"][task["componentRef"]["name"]]
            place = f"{where}.{name}"
            if task.get("triggerPolicy", {}).get("strategy") == _LAST:
                self._pair(f"{where}.onExit", "exit-hook", {"parent-dag-id": "240"})
                place = f"{where}.onExit(0).{name}"
            if "dag" not in of_task:
                artifacts = {}
                for key, source in task.get("inputs", {}).get("artifacts", {}).items():
                    producer = source.get("taskOutputArtifact", {}).get("producerTask", "")
                    made = f"{where}.{producer}" if producer else key  # one for all items of a loop
                    artifacts[key] = [f"{made}/{number}" for number in range(items_by_loop.get(producer, 1))]
                took = self._step(place, task, of_task, inputs, artifacts)
                outputs |= outputs_of(name, of_task, inputs)
            elif (items := items_of(task, inputs)) is None:
                took = self._nested(place, task, of_task, inputs, "-1")
            else:
                took = self._loop(place, task, of_task, inputs, items)
                items_by_loop[name] = len(items)
            ended[name] = took + max((ended[other] for other in task.get("dependentTasks", ())), default=0)
        return max(ended.values())

    def _loop(self, where: str, task: Ir, component: Ir, inputs: Mapping[str, Any], items: list[Any]) -> int:
        longest = 0
        self._pair(where, f"{task['componentRef']['name']}-iterator", {"parent-dag-id": "240"})
        self._dag_driver(f"{where}(0).iteration-driver", task, component, "-1")
        self._node(f"{where}(0).iteration-iterations", "TaskGroup", "iteration", {})
        for number, item in enumerate(items):
            place = f"{where}(0).iteration-iterations({number}:{number})"
            self._pair(place, "iteration", {"parent-dag-id": "240", "iteration-index": str(number)})
            own = dict(inputs) | {task["parameterIterator"]["itemInput"]: item}
            longest = max(longest, self._nested(f"{place}(0).iteration-item", task, component, own, str(number)))
        return 1 + longest

    def _nested(self, where: str, task: Ir, component: Ir, inputs: Mapping[str, Any], number: str) -> int:
        """Make the nodes of a DAG in a DAG."""
        self._dag_driver(f"{where}-driver", task, component, number)
        self._pair(where, task["componentRef"]["name"], {"parent-dag-id": "240"})
        return 1 + self._dag(f"{where}(0)", component, inputs)

    def _dag_driver(self, where: str, task: Ir, component: Ir, number: str) -> None:
        given = {"component": text(component), "runtime-config": "", "task": text(task), "iteration-index": number}
        self._driver(where, "system-dag-driver", given | {"parent-dag-id": "240", "driver-type": "DAG"})

    def _step(
        self, where: str, task: Ir, component: Ir, inputs: Mapping[str, Any], artifacts: Mapping[str, list[str]]
    ) -> int:
        """Make the nodes of a step, which gets `artifacts` from these places."""
        label = component["executorLabel"]
        container = self._ir["deploymentSpec"]["executors"][label]["container"]
        platform = self._platform.get(label, {})
        argument = executor_input(where, component, inputs, artifacts, self._pipeline)
        made = patch(component, container, platform, argument)
        self.nodes.longest_argument = max(self.nodes.longest_argument, len(argument.encode()))
        given = {"component": text(component), "task": text(task), "container": text(container)}
        given |= {"kubernetes-config": text(platform), "parent-dag-id": "240", "iteration-index": "-1"}
        self._driver(f"{where}-driver", "system-container-driver", given, {"pod-spec-patch": made})
        labels = dict(platform.get("podMetadata", {}).get("labels", {}))
        marked = {
            f"pod-metadata-label-{number}": f"{key}={value}" for number, (key, value) in enumerate(labels.items())
        }
        retry = {f"retry-{name}": str(value) for name, value in task.get("retryPolicy", {}).items()}
        known = {"pod-spec-patch": made} | marked | retry
        self._pair(where, "metadata-retry-system-container-executor", known | {"cached-decision": "false"})
        self._pair(f"{where}(0).executor", "metadata-retry-system-container-impl", known, pod=True)
        return 2

    def _driver(self, where: str, template: str, given: Ir, made: Ir | None = None) -> None:
        self._pair(where, template, given, {"condition": "nil"} | (made or {"execution-id": "240"}), pod=True)

    def _pair(self, where: str, template: str, given: Ir, made: Ir | None = None, *, pod: bool = False) -> None:
        """A node that tries something again, and its first try."""
        self._node(where, "Retry", template, given, made)
        self._node(f"{where}(0)", "Pod" if pod else "DAG", template, given, made)
        self.nodes.pods += pod

    def _node(self, where: str, kind: str, template: str, given: Ir, made: Ir | None = None) -> None:
        number = int(hashlib.sha256(where.encode()).hexdigest()[:8], 16)
        workflow = f"{self._pipeline}-00000"
        node: Ir = {"id": f"{workflow}-{number}", "name": where, "displayName": where.rsplit(".", 1)[-1], "type": kind}
        node |= {"templateName": template, "templateScope": f"local/{workflow}", **NODE}
        node |= {"boundaryID": f"{workflow}-{number ^ 0x5A5A5A5A}", "children": [f"{workflow}-{number ^ 0x3C3C3C3C}"]}
        node["inputs"] = {"parameters": [{"name": name, "value": value} for name, value in given.items()]}
        if made:
            node["outputs"] = {"parameters": [{"name": name, "value": value} for name, value in made.items()]}
        self.nodes.made[str(node["id"])] = node


def _in_order(tasks: Ir) -> Iterator[tuple[str, Ir]]:
    """Tasks after those that they depend on."""
    left = dict(tasks)
    while left:
        ready = [name for name, task in left.items() if not {*task.get("dependentTasks", ())} & {*left}]
        for name in ready:
            yield name, left.pop(name)
