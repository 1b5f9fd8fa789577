"""Compiled pipelines: one YAML package each, for the Kubeflow UI, `kfp` and the chart."""

from __future__ import annotations

from pathlib import Path

from tamis.core.errors import explained_os_errors
from tamis_pipelines.definitions import PIPELINES


def compile_all(folder: Path, parallelism: int = 0) -> list[Path]:
    """Compile every pipeline into `folder`; returns the packages' paths."""
    from kfp.compiler import Compiler

    with explained_os_errors(f"writing {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        packages = []
        for name, make in PIPELINES.items():
            packages.append(folder / f"{name}.yaml")
            Compiler().compile(make(parallelism), str(packages[-1]))
    return packages
