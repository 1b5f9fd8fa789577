"""The two Kubeflow pipelines.

Their parameters are the sections of the settings file (`settings.RunSettings`) and, for the cluster, what
`pods.KubeflowSettings` leaves to a run. `chain` says which step takes what.
"""

import inspect
from collections.abc import Callable
from typing import Any, Dict, List, get_args  # noqa: UP035  kfp reads these spellings only

from kfp import dsl, kubernetes

from tamis.cluster.component import note_outcome, start_run
from tamis.core.run_place import WORKFLOW
from tamis.core.stages import PodKind
from tamis_pipelines import chain
from tamis_pipelines.chain import Given
from tamis_pipelines.pods import SCORE_PODS, CompileSettings, KubeflowSettings, fit

_WORKFLOW_LABEL = "workflows.argoproj.io/workflow"  # Argo puts it on every pod
_SELECTION: dict[str, Any] = {
    "pool": dict,
    "raters": List[dict],  # noqa: UP006
    "embedding": dict,
    "neighbors": dict,
    "curation": dict,
    "report": dict,
}
_SUBSETS: dict[str, Any] = {"subsets": List[dict]}  # noqa: UP006
# A cell has the settings of its subset, its training and, if it is judged, its judging, under these names.
_CELLS: dict[str, Any] = {"cells": List[Dict[str, dict]], "bases": List[dict], "evaluation": dict}  # noqa: UP006


class _Tasks:
    """Makes the tasks of a pipeline, each in the pod of its kind (`chain.Maker`)."""

    def __init__(self, given: Given, fixed: CompileSettings) -> None:
        self._given, self._fixed = given, fixed

    def step(
        self,
        component: Any,
        output: str = "",
        *,
        pod: PodKind | None = None,
        title: str | None = None,
        once: bool = False,
        timeout: int | None = None,
        **inputs: Any,
    ) -> Any:
        task = fit(component(**inputs), pod or component.pod, self._given, self._fixed, once=once, timeout=timeout)
        if title is not None:
            task.set_display_name(title)
        return task.outputs[output] if output else None

    def each(self, items: Any, body: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        with dsl.ParallelFor(items, parallelism=self._fixed.parallelism) as item:
            return body(item)

    def all_of(self, made: Any) -> Any:
        return dsl.Collected(made)


def data_selection(settings: CompileSettings | None = None) -> Any:
    """The pipeline from raw data to subsets and a report."""
    fixed = settings or CompileSettings()
    about = "Rate a pool, curate the ratings, select subsets, report."
    return _pipeline("data-selection", about, _SELECTION | _SUBSETS, ("base", "embedding", "rating"), fixed)


def experiment(settings: CompileSettings | None = None) -> Any:
    """The pipeline from raw data to finetuned, evaluated models and a report."""
    fixed = settings or CompileSettings()
    about = "Select subsets, finetune models on each, evaluate them beside the base models, report."
    trainer = {"trainer": dict} if fixed.trainer else {}
    return _pipeline("experiment", about, _SELECTION | _CELLS | trainer, get_args(PodKind), fixed)


def _pipeline(
    name: str,
    about: str,
    sections: dict[str, Any],
    kinds: tuple[PodKind, ...],
    fixed: CompileSettings,
) -> Any:
    """A pipeline whose parameters are sections, the cluster's for kinds of pods, and where outcomes are kept.

    To `sections` and `kinds` come those of the scores that are compiled in, and the raters' `workers`.

    The signature is made here instead of written out, since both pipelines share most of some forty parameters.
    """
    workers = {"workers": List[dict]} if fixed.sharded else {}  # noqa: UP006
    sections = sections | workers | dict.fromkeys(fixed.scores, dict)
    kinds = tuple(dict.fromkeys([*kinds, *(SCORE_PODS[name] for name in fixed.scores)]))
    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(section, keyword, annotation=kind) for section, kind in sections.items()]
    for parameter, default in _defaults(kinds).items():
        parameters.append(inspect.Parameter(parameter, keyword, annotation=type(default), default=default))

    def pipeline(*values: Any) -> None:
        given = dict(zip((parameter.name for parameter in parameters), values, strict=True))
        run = {"name": dsl.PIPELINE_JOB_NAME_PLACEHOLDER, "outcomes": given["outcomes"]}
        end = fit(note_outcome(**run), "base", given, fixed, once=True)
        with dsl.ExitHandler(end, name="steps"):
            begun = fit(start_run(**run), "base", given, fixed.model_copy(update={"cached": False}))
            kubernetes.use_field_path_as_env(begun, WORKFLOW, f"metadata.labels['{_WORKFLOW_LABEL}']")
            chain.CHAINS[name](_Tasks(given, fixed), given, fixed)

    pipeline.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    config = dsl.PipelineConfig(ttl_seconds_after_failure=fixed.keep_failed) if fixed.keep_failed else None
    return dsl.pipeline(name=name, description=about, pipeline_config=config)(pipeline)


def _defaults(kinds: tuple[PodKind, ...]) -> dict[str, Any]:
    """The run-time parameters of a pipeline with these kinds of pods, with the values that they have if not given."""
    settings = KubeflowSettings()
    others = tuple(f"{kind}_" for kind in get_args(PodKind) if kind not in kinds)
    parameters = {name: value for name, value in settings.arguments().items() if not name.startswith(others or ("?",))}
    return parameters | {"outcomes": ""}


PIPELINES: dict[str, Callable[..., Any]] = {"data-selection": data_selection, "experiment": experiment}
