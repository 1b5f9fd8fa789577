"""Compiled pipelines: one YAML package each, for the Kubeflow UI, `kfp` and the chart."""

from __future__ import annotations

from pathlib import Path

from tamis.core.errors import explained_os_errors
from tamis_pipelines.definitions import PIPELINES
from tamis_pipelines.pods import CompileSettings


def compile_all(folder: Path, settings: CompileSettings | None = None) -> list[Path]:
    """Compile every pipeline into `folder`; returns the packages' paths."""
    return [compile_one(name, folder, settings) for name in PIPELINES]


def compile_one(name: str, folder: Path, settings: CompileSettings | None = None) -> Path:
    """Compile the pipeline `name` into `folder`; returns the package's path."""
    from kfp.compiler import Compiler

    package = folder / f"{name}.yaml"
    with explained_os_errors(f"writing {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        Compiler().compile(PIPELINES[name](settings), str(package))
    return package
