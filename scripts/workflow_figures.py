"""Measures `tamis_pipelines.workflow.figures` from workflows that a real Kubeflow has recorded.

    python scripts/workflow_figures.py FOLDER

FOLDER has a folder for each recorded run, with `v1beta1.json.gz`: the server's answer to `GET /apis/v1beta1/runs/{id}`.
For each run it prints what the server kept, and what `tamis_pipelines.workflow` computes from its package.
"""

from __future__ import annotations

import base64
import gzip
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tamis.cluster.workflow import nodes_of
from tamis_pipelines.workflow.patches import text
from tamis_pipelines.workflow.size import Package


@dataclass(frozen=True)
class Recorded:
    """A recorded workflow: its nodes, spec, packed nodes, and the package and arguments that it was made of."""

    spec: dict[str, Any]
    nodes: dict[str, Any]
    packed: str
    package: Package
    arguments: dict[str, Any]


def recorded(file: Path) -> Recorded:
    """Read a recorded answer of the server."""
    answer = json.loads(gzip.decompress(file.read_bytes()))
    workflow = json.loads(answer["pipeline_runtime"]["workflow_manifest"])
    status = workflow["status"]
    return Recorded(
        workflow["spec"], nodes_of(workflow), status.get("compressedNodes", ""), *_package(workflow["spec"])
    )


def _package(spec: dict[str, Any]) -> tuple[Package, dict[str, Any]]:
    """The package and its arguments, from the texts that Kubeflow has put into the workflow."""
    texts = {one["name"]: json.loads(one["value"]) for one in spec["arguments"]["parameters"]}
    components: dict[str, Any] = {}
    executors: dict[str, Any] = {}
    platform: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    for template in spec["templates"]:
        for task in template.get("dag", {}).get("tasks", []):
            given = {one["name"]: one.get("value", "") for one in task.get("arguments", {}).get("parameters", [])}
            if given.get("runtime-config", "").startswith("{"):
                arguments = json.loads(given["runtime-config"])["parameterValues"]
            if not given.get("task", "").startswith("{"):
                continue
            name = json.loads(given["task"])["componentRef"]["name"]
            components[name] = _referred(given["component"], texts)
            if "container" in given:
                label = components[name]["executorLabel"]
                executors[label] = {"container": _referred(given["container"], texts)}
                platform[label] = _referred(given["kubernetes-config"], texts)
    pipeline = "experiment" if "bases" in arguments else "data-selection"
    ir = {"pipelineInfo": {"name": pipeline}, "root": texts["components-root"], "components": components}
    return Package(ir | {"deploymentSpec": {"executors": executors}}, platform), arguments


def _referred(reference: str, texts: dict[str, Any]) -> Any:
    return texts[reference.removeprefix("{{workflow.parameters.").removesuffix("}}")]


def main() -> None:
    print("run                   spec   computed    nodes  packed  gzip 6  computed  pods  computed")
    for file in sorted(Path(sys.argv[1]).glob("*/v1beta1.json.gz")):
        one = recorded(file)
        made = one.package.size(one.arguments)
        here = len(base64.b64encode(gzip.compress(text(one.nodes).encode(), 6)))
        pods = sum(node["type"] == "Pod" for node in one.nodes.values())
        sizes = f"{len(text(one.spec)):7}  {made.spec:9}  {len(text(one.nodes)):7} {len(one.packed):7} {here:7}"
        print(f"{file.parent.name:20} {sizes}  {made.status:8}  {pods:4}  {made.pods:8}")


if __name__ == "__main__":
    main()
