"""How a Kubeflow component is declared: its image, its kind of pod, and what its stage's description requires."""

from __future__ import annotations

import linecache
import os
from collections.abc import Callable
from typing import Any

from kfp import dsl

import tamis
from tamis.core.settings import StageSettings
from tamis.core.stages import IMAGES, PodKind, Stage, all_stages
from tamis.kubeflow import REVISION

REGISTRY = os.environ.get("TAMIS_IMAGE_REGISTRY", "ghcr.io/tamis")
TAG = os.environ.get("TAMIS_IMAGE_TAG", tamis.__version__)


def image(name: str) -> str:
    """Full name of one of Tamis' images: "cpu", "rating", "training" or "evaluation".

    `TAMIS_IMAGE_REGISTRY` and `TAMIS_IMAGE_TAG` change all of them; `TAMIS_IMAGE_CPU` and so on name one in full, by
    digest say. The chart and the manifests name the same images; tests hold the three together.
    """
    return os.environ.get(f"TAMIS_IMAGE_{name.upper()}") or f"{REGISTRY}/tamis-{name}:{TAG}"


def component(stage: Stage) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: the component of a stage, in the pod and with the revision that the stage's description says.

    Raises:
        TypeError: when the function does not take what the stage takes, or make what it makes.
    """
    (known,) = (one for one in all_stages().values() if one.command == stage.command)

    def decorate(function: Callable[..., Any]) -> Any:
        made = step(known.pod, known.settings_model)(function)
        if wrong := _unlike(made.component_spec, known):
            raise TypeError(f"the component {function.__name__} and the description of `{known.command}`: {wrong}")
        return made

    return decorate


def _unlike(spec: Any, stage: Stage) -> str:
    """Where a component differs from its stage's description; empty where it does not."""
    inputs, outputs = spec.inputs or {}, spec.outputs or {}
    if stage.makes not in outputs:
        return f"it makes {', '.join(outputs)}, not {stage.makes}"
    for given in stage.inputs:
        taken = inputs.get(given.name)
        if given.required and (taken is None or taken.optional):
            return f"{given.name} must be required"
        if taken is not None and (taken.is_artifact_list != given.many or (taken.optional and given.required)):
            return f"{given.name} must be {'several artifacts' if given.many else 'one artifact'}"
    added = {name for name, one in inputs.items() if not one.optional} - {given.name for given in stage.inputs}
    return f"{', '.join(sorted(added - {'settings'}))} must be optional" if added != {"settings"} else ""


def step(pod: PodKind, stage: type[StageSettings] | None = None, name: str = "") -> Callable[[Callable[..., Any]], Any]:
    """Decorator: a lightweight component that runs in a pod of this kind and installs nothing at run time.

    `stage` are the settings of the stage that it runs. The revision of the stage's output becomes an argument of the
    container: Kubeflow's cache knows a step by its image and arguments, and an image of another revision is found out.
    `name` is what the step is called, if not by its function.
    """
    decorator = dsl.component(base_image=image(IMAGES[pod]), install_kfp_package=False, packages_to_install=[])

    def decorate(function: Callable[..., Any]) -> Any:
        made = decorator(function)
        made.pod = pod
        made.component_spec.name = name or made.component_spec.name
        if stage is not None:
            made.component_spec.implementation.container.args += [REVISION, str(stage.OUTPUT_REVISION)]
        return made

    return decorate


def function_from(source: str, name: str, known: dict[str, Any]) -> Callable[..., Any]:
    """The function `name` that `source` defines, for a component whose inputs are not all known when it is written.

    Kubeflow copies a component's source, so it is kept where `inspect` looks. `known` are names that it may use.
    """
    file = f"<component {name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source, file, "exec", dont_inherit=True), known)  # `known` has what the signature names
    function: Callable[..., Any] = known[name]
    return function
