"""Compiled pipelines: one YAML package each, for the Kubeflow UI, `kfp` and the chart."""

from __future__ import annotations

from itertools import dropwhile
from pathlib import Path

import tamis
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
        # kfp's comment on top lists the defaults of mappings in an order that differs from process to process.
        lines = package.read_text().splitlines(keepends=True)
        body = "".join(dropwhile(lambda line: line.startswith("#"), lines))
        package.write_text(f"# Pipeline {name} of Tamis {tamis.__version__}, made by `tamis compile`.\n{body}")
    return package
