"""The two Kubeflow pipelines.

Their parameters are the sections of the settings file (`settings.RunSettings`) and, for the cluster, what
`pods.KubeflowSettings` leaves to a run.
"""

import inspect
from collections.abc import Callable
from typing import Any, Dict, List, get_args  # noqa: UP035  kfp reads these spellings only

from kfp import dsl

from tamis.cluster.component import note_outcome, require_all_cells
from tamis.curation.component import curate
from tamis.embedding.component import embed
from tamis.evaluation.component import evaluate
from tamis.finetuning.component import finetune, finetune_on_trainer
from tamis.influence.component import influence
from tamis.judging.component import judge
from tamis.neighbors.component import find_neighbors
from tamis.pool.component import pool as assemble_pool
from tamis.rating.component import gather_ratings, merge_ratings, rate
from tamis.reporting.component import report as write_report
from tamis.scoring.component import score
from tamis.selection.component import select
from tamis_pipelines.pods import CompileSettings, KubeflowSettings, PodKind, ScoreName, fit

Given = dict[str, Any]
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
# Steps that a pipeline has only where a strategy ranks by them, and their pods.
_SCORES: dict[ScoreName, tuple[Any, PodKind]] = {
    "perplexity": (score, "rating"),
    "deita": (score, "rating"),
    "influence": (influence, "training"),
}


def data_selection(settings: CompileSettings | None = None) -> Any:
    """The pipeline from raw data to subsets and a report."""
    fixed = settings or CompileSettings()

    def body(given: Given) -> None:
        made = _rated_and_curated(given, fixed)
        with dsl.ParallelFor(given["subsets"], parallelism=fixed.parallelism) as subset:
            selected = _selected(made, subset, given, fixed)
        _reported(made, selected, selected, given, fixed)

    about = "Rate a pool, curate the ratings, select subsets, report."
    return _pipeline("data-selection", about, _SELECTION | _SUBSETS, ("base", "embedding", "rating"), body, fixed)


def experiment(settings: CompileSettings | None = None) -> Any:
    """The pipeline from raw data to finetuned, evaluated models and a report."""
    fixed = settings or CompileSettings()

    def body(given: Given) -> None:
        made = _rated_and_curated(given, fixed)
        with dsl.ParallelFor(given["bases"], parallelism=fixed.parallelism) as base:
            untrained = fit(evaluate(settings=base), "evaluation", given, fixed).outputs["evaluation"]
        with dsl.ParallelFor(given["cells"], parallelism=fixed.parallelism) as cell:
            selected = _selected(made, cell.subset, given, fixed)
            model = _finetuned(selected, cell.finetuning, given, fixed)
            scored = fit(evaluate(model=model, settings=given["evaluation"]), "evaluation", given, fixed)
            judged = fit(judge(model=model, settings=cell.judging), "rating", given, fixed) if fixed.judging else None
        judgement = judged.outputs["judgement"] if judged else None
        result = scored.outputs["evaluation"]
        _reported(made, selected, result, given, fixed, model=model, base=untrained, judgement=judgement)

    about = "Select subsets, finetune models on each, evaluate them beside the base models, report."
    trainer = {"trainer": dict} if fixed.trainer else {}
    return _pipeline("experiment", about, _SELECTION | _CELLS | trainer, get_args(PodKind), body, fixed)


def _reported(
    made: Given,
    selected: Any,
    result: Any,
    given: Given,
    fixed: CompileSettings,
    *,
    model: Any = None,
    base: Any = None,
    judgement: Any = None,
) -> None:
    """The steps that both pipelines end with. `result` is the last artifact of a cell; `base` is of a base model."""

    def judgements() -> Given:
        return {} if judgement is None else {"judgements": dsl.Collected(judgement)}

    # kfp changes a Collected when a task takes it, so every task gets one of its own.
    of_models = {}
    if model is not None:
        of_models = {
            "models": dsl.Collected(model),
            "evaluations": dsl.Collected(result),
            "base_evaluations": dsl.Collected(base),
        }
    task = write_report(
        pool=made["pool"],
        ratings=dsl.Collected(made["ratings"]),
        curation=made["curation"],
        selections=dsl.Collected(selected),
        settings=given["report"],
        **of_models,
        **judgements(),
    )
    report = fit(task, "base", given, fixed).outputs["report"]
    bases = {} if base is None else {"bases": dsl.Collected(base)}
    check = require_all_cells(report=report, results=dsl.Collected(result), **bases, **judgements())
    fit(check, "base", given, fixed, once=True)


def _rated_and_curated(given: Given, fixed: CompileSettings) -> Given:
    """The steps that both pipelines begin with; returns their artifacts by kind."""
    samples = fit(assemble_pool(settings=given["pool"]), "base", given, fixed).outputs["pool"]
    embedded = fit(embed(pool=samples, settings=given["embedding"]), "embedding", given, fixed)
    embeddings = embedded.outputs["embeddings"]
    searched = find_neighbors(embeddings=embeddings, settings=given["neighbors"])
    graph = fit(searched, "base", given, fixed).outputs["neighbors"]
    ratings = _rated(samples, given, fixed)
    curated = curate(
        ratings=dsl.Collected(ratings),
        neighbors=graph,
        pool=samples,
        embeddings=embeddings,
        settings=given["curation"],
    )
    curation = fit(curated, "base", given, fixed).outputs["curation"]
    made = {"pool": samples, "embeddings": embeddings, "neighbors": graph, "ratings": ratings, "curation": curation}
    return made | {"scores": {name: _scored(name, samples, given, fixed) for name in fixed.scores}}


def _rated(samples: Any, given: Given, fixed: CompileSettings) -> Any:
    """The ratings of each rater, made by a pod each; where raters may have several, by way of their parts."""
    if not fixed.sharded:
        with dsl.ParallelFor(given["raters"], parallelism=fixed.parallelism) as rater:
            return fit(rate(pool=samples, settings=rater), "rating", given, fixed).outputs["ratings"]
    with dsl.ParallelFor(given["workers"], parallelism=fixed.parallelism) as worker:
        rated = fit(rate(pool=samples, settings=worker), "rating", given, fixed)
    gathered = fit(gather_ratings(ratings=dsl.Collected(rated.outputs["ratings"])), "base", given, fixed)
    with dsl.ParallelFor(given["raters"], parallelism=fixed.parallelism) as rater:
        merged = merge_ratings(pool=samples, parts=gathered.outputs["parts"], settings=rater)
        return fit(merged, "base", given, fixed).outputs["ratings"]


def _scored(name: ScoreName, samples: Any, given: Given, fixed: CompileSettings) -> Any:
    component, kind = _SCORES[name]
    task = fit(component(pool=samples, settings=given[name]), kind, given, fixed)
    return task.set_display_name(name).outputs["scores"]


def _selected(made: Given, subset: Any, given: Given, fixed: CompileSettings) -> Any:
    names = ("pool", "curation", "neighbors", "embeddings")
    task = select(**{name: made[name] for name in names}, **made["scores"], settings=subset)
    return fit(task, "base", given, fixed).outputs["selection"]


def _finetuned(selected: Any, settings: Any, given: Given, fixed: CompileSettings) -> Any:
    """The model that is trained on a subset, by a pod or by the TrainJob that a pod makes."""
    if not fixed.trainer:
        return fit(finetune(selection=selected, settings=settings), "training", given, fixed).outputs["model"]
    task = finetune_on_trainer(selection=selected, settings=settings, trainer=given["trainer"])
    return fit(task, "base", given, fixed, timeout=fixed.timeouts.training).outputs["model"]


def _pipeline(
    name: str,
    about: str,
    sections: dict[str, Any],
    kinds: tuple[PodKind, ...],
    body: Callable[[Given], None],
    fixed: CompileSettings,
) -> Any:
    """A pipeline whose parameters are sections, the cluster's for kinds of pods, and where outcomes are kept.

    To `sections` and `kinds` come those of the scores that are compiled in, and the raters' `workers`.

    The signature is made here instead of written out, since both pipelines share most of some forty parameters.
    """
    workers = {"workers": List[dict]} if fixed.sharded else {}  # noqa: UP006
    sections = sections | workers | dict.fromkeys(fixed.scores, dict)
    kinds = tuple(dict.fromkeys([*kinds, *(_SCORES[name][1] for name in fixed.scores)]))
    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(section, keyword, annotation=kind) for section, kind in sections.items()]
    for parameter, default in _defaults(kinds).items():
        parameters.append(inspect.Parameter(parameter, keyword, annotation=type(default), default=default))

    def pipeline(*values: Any) -> None:
        given = dict(zip((parameter.name for parameter in parameters), values, strict=True))
        end = fit(note_outcome(outcomes=given["outcomes"]), "base", given, fixed, once=True)
        with dsl.ExitHandler(end, name="steps"):
            body(given)

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
