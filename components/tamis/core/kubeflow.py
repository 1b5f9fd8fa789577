"""The frame of every Kubeflow component: its image, and one call that runs a stage and reports what it made."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from kfp import dsl

import tamis
from tamis.core.artifacts import Manifest
from tamis.core.errors import TamisError
from tamis.core.progress import set_up_logging
from tamis.core.settings import Settings, parse

log = logging.getLogger(__name__)
S = TypeVar("S", bound=Settings)
REGISTRY = os.environ.get("TAMIS_IMAGE_REGISTRY", "ghcr.io/tamis")
TAG = os.environ.get("TAMIS_IMAGE_TAG", tamis.__version__)
REASON_FILE = "TAMIS_REASON_FILE"  # where a failed step leaves its reason; Kubernetes' own place if not set
RUNNER_PID = "TAMIS_RUNNER_PID"  # process whose end ends the steps that it started


def image(name: str) -> str:
    """Full name of one of Tamis' images: "cpu", "rating", "training" or "evaluation".

    `TAMIS_IMAGE_REGISTRY` and `TAMIS_IMAGE_TAG` change all of them; `TAMIS_IMAGE_CPU` and so on name one in full, by
    digest say. The chart and the manifests name the same images; tests hold the three together.
    """
    return os.environ.get(f"TAMIS_IMAGE_{name.upper()}") or f"{REGISTRY}/tamis-{name}:{TAG}"


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

    Raises:
        SystemExit: after a `TamisError`, whose text is then the last thing in the log, without a traceback above it.
    """
    set_up_logging()
    _end_with_runner()
    try:
        manifest = run(parse(settings_model, settings, where="settings"), out=out.path, **inputs)
    except TamisError as error:
        log.error("failed: %s", error)
        _leave_reason(str(error))
        raise SystemExit(1) from error
    out.metadata.update(
        {"kind": manifest.kind, "name": manifest.name, "rows": manifest.rows, "content_hash": manifest.content_hash}
    )
    metrics.log_metric("rows", manifest.rows)
    metrics.log_metric("seconds", manifest.execution.seconds)
    for name, value in manifest.facts.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            metrics.log_metric(name, value)
    return manifest


def _leave_reason(reason: str) -> None:
    """Write why the step failed where Kubernetes, or `tamis run`, looks for it."""
    place = Path(os.environ.get(REASON_FILE, "/dev/termination-log"))
    if place.exists() and os.access(place, os.W_OK):
        place.write_text(reason[:4000], encoding="utf-8")  # Kubernetes keeps 4,096 bytes


def _end_with_runner() -> None:
    """On one machine, stop when `tamis run` is gone (killed, say): nobody waits for this step any more."""
    runner = os.environ.get(RUNNER_PID)
    if runner is None:
        return

    def watch(pid: int) -> None:
        while True:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                os._exit(1)
            time.sleep(1)

    threading.Thread(target=watch, args=(int(runner),), daemon=True).start()
