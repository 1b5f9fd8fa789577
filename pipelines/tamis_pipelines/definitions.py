"""The two pipelines, as Kubeflow runs them and as `tamis run` does.

On Kubeflow their parameters are the sections of the settings file, with cells in groups (`groups.grouped`), and, where
they are not compiled in, the settings of pods (`pods.KubeflowSettings`). A local run has a step for each cell, and the
parameters of `settings.RunSettings.arguments`. `chain` says which step takes what.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Dict, List, get_args  # noqa: UP035  kfp reads these spellings only

from kfp import dsl, kubernetes

from tamis.cluster.component import note_outcome, start_run
from tamis.core.run_place import WORKFLOW
from tamis.core.stages import PodKind
from tamis_pipelines import chain
from tamis_pipelines.chain import Given
from tamis_pipelines.pods import OPTIONAL_STEPS, SCORE_PODS, CompileSettings, KubeflowSettings, fit

_SELECTION: dict[str, Any] = {"pool": dict, "embedding": dict, "neighbors": dict, "curation": dict, "report": dict}
_DICTS: Any = List[dict]  # noqa: UP006
_GROUPS: Any = List[List[dict]]  # noqa: UP006
_ABOUT = {
    "data-selection": "Rate a pool, curate the ratings, select subsets, report.",
    "experiment": "Select subsets, finetune models on each, evaluate them beside the base models, report.",
}
_WORKFLOW_LABEL = "workflows.argoproj.io/workflow"  # Argo puts it on every pod
_KINDS: dict[str, tuple[PodKind, ...]] = {
    "data-selection": ("base", "embedding", "rating"),
    "experiment": get_args(PodKind),
}


class _Tasks:
    """Makes the tasks of a pipeline, each in the pod of its kind (`chain.Maker`)."""

    def __init__(self, given: Given, fixed: CompileSettings, *, grouped: bool = True) -> None:
        self._given, self._fixed, self.grouped = given, fixed, grouped

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
        cells = "cells" in inputs and not once
        task = component(**inputs)
        fit(task, pod or component.pod, self._given, self._fixed, once=once, timeout=timeout, cells=cells)
        if title is not None:
            task.set_display_name(title)
        return task.outputs[output] if output else None

    def each(self, items: Any, body: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        with dsl.ParallelFor(items, parallelism=self._fixed.parallelism) as item:
            return body(item)

    def all_of(self, made: Any) -> Any:
        return dsl.Collected(made)


def pipeline(
    name: str,
    settings: CompileSettings | None = None,
    *,
    constants: Mapping[str, Any] | None = None,
    grouped: bool = True,
) -> Any:
    """The pipeline `name`, as kfp knows pipelines.

    Args:
        name: "data-selection", from raw data to subsets and a report; or "experiment", which goes on to finetuned and
            evaluated models.
        settings: what is compiled in.
        constants: values of the parameters of pods (`KubeflowSettings.arguments`) and of `outcomes`, which are then no
            parameters of a run: Kubeflow carries each parameter into every loop.
        grouped: whether steps work for several cells; False for a local run.
    """
    fixed = settings or CompileSettings()
    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    sections = _sections(name, fixed, grouped=grouped)
    parameters = [inspect.Parameter(section, keyword, annotation=kind) for section, kind in sections.items()]
    for parameter, default in {} if constants is not None else _defaults(name, fixed).items():
        parameters.append(inspect.Parameter(parameter, keyword, annotation=type(default), default=default))

    def body(*values: Any) -> None:
        given = dict(constants or {}) | dict(zip((one.name for one in parameters), values, strict=True))
        run = {"name": dsl.PIPELINE_JOB_NAME_PLACEHOLDER, "outcomes": given["outcomes"]}
        end = fit(note_outcome(**run), "base", given, fixed, once=True)
        with dsl.ExitHandler(end, name="steps"):
            given |= _started(run, name, given, fixed, grouped=grouped)
            chain.CHAINS[name](_Tasks(given, fixed, grouped=grouped), given, fixed)

    body.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    config = dsl.PipelineConfig(ttl_seconds_after_failure=fixed.keep_failed) if fixed.keep_failed else None
    return dsl.pipeline(name=name, description=_ABOUT[name], pipeline_config=config)(body)


def _started(
    run: Mapping[str, Any], name: str, given: Given, fixed: CompileSettings, *, grouped: bool
) -> dict[str, Any]:
    """The first step of a run; returns the parameters that it changes."""
    kind = "subsets" if name == "data-selection" else "cells"
    known: dict[str, Any] = {}
    if grouped:
        known = {section: given[section] for section in (*_SELECTION, "raters") if section != "report"}
        known |= {"cells": given[kind]} | ({"bases": given["bases"]} if name == "experiment" else {})
    begun = fit(start_run(**run, **known), "base", given, fixed.model_copy(update={"cached": False}))
    kubernetes.use_field_path_as_env(begun, WORKFLOW, f"metadata.labels['{_WORKFLOW_LABEL}']")
    if not grouped:
        return {}
    attempts = {score: begun.outputs[score if score in begun.outputs else "others"] for score in fixed.scores}
    changed = {kind: begun.outputs["cells"], "attempts": attempts}
    return changed | ({"bases": begun.outputs["bases"]} if name == "experiment" else {})


def _sections(name: str, fixed: CompileSettings, *, grouped: bool) -> dict[str, Any]:
    """The parameters that are settings of stages, with their types."""
    together = grouped and not fixed.sharded  # what merges a rater's shards works for one rater
    sections = _SELECTION | {"raters": _GROUPS if together else _DICTS}
    if name == "data-selection":
        sections |= {"subsets": _DICTS}
    elif grouped:
        cells: Any = List[Dict[str, list]]  # noqa: UP006
        sections |= {"cells": cells, "bases": _GROUPS, "finetuning": dict, "evaluation": dict}
        sections |= {"judging": dict} if fixed.judging else {}
    else:
        cells = List[Dict[str, dict]]  # noqa: UP006
        sections |= {"cells": cells, "bases": _DICTS, "evaluation": dict}
    sections |= {step: dict for step in OPTIONAL_STEPS if getattr(fixed, step)}
    if name == "experiment" and fixed.trainer:
        sections |= {"trainer": dict}
    return sections | ({"workers": _DICTS} if fixed.sharded else {}) | dict.fromkeys(fixed.scores, dict)


def _defaults(name: str, fixed: CompileSettings) -> dict[str, Any]:
    """The run-time parameters of a pipeline's pods, with the values that they have if not given."""
    kinds = {*_KINDS[name], *(SCORE_PODS[score] for score in fixed.scores)}
    others = tuple(f"{kind}_" for kind in get_args(PodKind) if kind not in kinds)
    values = KubeflowSettings().arguments()
    return {name: value for name, value in values.items() if not name.startswith(others or ("?",))} | {"outcomes": ""}


PIPELINES: dict[str, Callable[..., Any]] = {name: functools.partial(pipeline, name) for name in chain.CHAINS}
