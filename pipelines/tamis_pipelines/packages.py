"""Compiled pipelines: one YAML package each, for the Kubeflow UI, `kfp` and the chart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import dropwhile
from pathlib import Path
from typing import Any

import tamis
from tamis.core.errors import explained_os_errors
from tamis_pipelines.definitions import PIPELINES
from tamis_pipelines.pods import CompileSettings


def compile_all(folder: Path, settings: CompileSettings | None = None) -> list[Path]:
    """Compile every pipeline into `folder`; returns the packages' paths."""
    return [compile_one(name, folder, settings) for name in PIPELINES]


def compile_one(
    name: str, folder: Path, settings: CompileSettings | None = None, constants: Mapping[str, Any] | None = None
) -> Path:
    """Compile the pipeline `name` into `folder`; returns the package's path.

    `constants` are values of parameters that a run then cannot set (`definitions.pipeline`).
    """
    from kfp.compiler import Compiler

    package = folder / f"{name}.yaml"
    with explained_os_errors(f"writing {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        Compiler().compile(PIPELINES[name](settings, constants=constants), str(package))
        # kfp's comment on top lists the defaults of mappings in an order that differs from process to process.
        lines = package.read_text().splitlines(keepends=True)
        body = "".join(dropwhile(lambda line: line.startswith("#"), lines))
        package.write_text(f"# Pipeline {name} of Tamis {tamis.__version__}, made by `tamis compile`.\n{body}")
    return package


def compile_objects(folder: Path, namespace: str, settings: CompileSettings | None = None) -> list[Path]:
    """Compile every pipeline into objects for `kubectl apply`, for Kubeflow that keeps pipelines in the cluster.

    Each file has a Pipeline and a PipelineVersion, which is named by its content: one that has not changed keeps its
    name.
    """
    return [_as_objects(package, namespace) for package in compile_all(folder, settings)]


def _as_objects(package: Path, namespace: str) -> Path:
    """Put objects with its content in the place of a package."""
    import yaml

    name, file = package.stem, package.with_suffix(".objects.yaml")
    with explained_os_errors(f"writing {package.parent}"):
        content = package.read_bytes()
        pipeline, platform = yaml.safe_load_all(content)
        version = f"{name}-{tamis.__version__.replace('.', '-')}-{hashlib.sha256(content).hexdigest()[:12]}"
        about = {"displayName": name, "description": pipeline["pipelineInfo"]["description"]}
        specs = {"pipelineName": name, "pipelineSpec": pipeline, "platformSpec": platform}
        objects: list[dict[str, Any]] = [
            {"kind": "Pipeline", "metadata": {"name": name}, "spec": about},
            {
                "kind": "PipelineVersion",
                "metadata": {"name": version},
                "spec": about | {"displayName": version} | specs,
            },
        ]
        for document in objects:
            document["metadata"]["namespace"] = namespace
        made = [{"apiVersion": "pipelines.kubeflow.org/v2beta1", **document} for document in objects]
        file.write_text(yaml.safe_dump_all(made, sort_keys=False))
        package.unlink()
    return file
