"""The frame of every Kubeflow component: its image, and one call that runs a stage and reports what it made."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from kfp import dsl

import tamis
from tamis.core.artifacts import Manifest
from tamis.core.progress import set_up_logging
from tamis.core.settings import Settings, parse

S = TypeVar("S", bound=Settings)
REGISTRY = os.environ.get("TAMIS_IMAGE_REGISTRY", "ghcr.io/tamis")
TAG = os.environ.get("TAMIS_IMAGE_TAG", tamis.__version__)


def image(name: str) -> str:
    """Full name of one of Tamis' images: "cpu", "rating", "training" or "evaluation"."""
    return f"{REGISTRY}/tamis-{name}:{TAG}"


def component(image_name: str) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: a lightweight component that runs in the image `image_name` and installs nothing at run time."""
    decorator: Callable[[Callable[..., Any]], Any] = dsl.component(
        base_image=image(image_name), install_kfp_package=False, packages_to_install=[]
    )
    return decorator


def execute(
    run: Callable[..., Manifest],
    settings_model: type[S],
    settings: dict[str, Any],
    *,
    out: dsl.Artifact,
    metrics: dsl.Metrics,
    **inputs: Any,
) -> Manifest:
    """Run a stage inside a component: validate `settings`, call `run`, describe the result on `out` and `metrics`.

    `inputs` are the paths of the stage's input artifacts, by the names that `run` gives them.
    """
    set_up_logging()
    manifest = run(parse(settings_model, settings, where="settings"), out=out.path, **inputs)
    out.metadata.update(
        {"kind": manifest.kind, "name": manifest.name, "rows": manifest.rows, "content_hash": manifest.content_hash}
    )
    metrics.log_metric("rows", manifest.rows)
    metrics.log_metric("seconds", manifest.execution.seconds)
    for name, value in manifest.facts.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            metrics.log_metric(name, value)
    return manifest
