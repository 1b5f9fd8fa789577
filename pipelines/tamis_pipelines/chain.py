"""Which step takes what: the one description of a run that Kubeflow's pipelines, local runs and `tamis plan` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from tamis.cluster.component import require_all_cells
from tamis.core.stages import PodKind
from tamis.curation.component import curate
from tamis.embedding.component import embed
from tamis.evaluation.component import evaluate
from tamis.finetuning.component import finetune, finetune_on_trainer
from tamis.influence.component import influence
from tamis.judging.component import judge
from tamis.nearcopies.component import drop_near_copies
from tamis.neighbors.component import find_neighbors
from tamis.pool.component import pool as assemble_pool
from tamis.rating.component import gather_ratings, merge_ratings, rate
from tamis.reporting.component import report as write_report
from tamis.reporting.component import report_on_subsets
from tamis.scoring.component import score
from tamis.selection.component import select
from tamis.signals.component import describe
from tamis_pipelines.pods import SCORE_PODS, CompileSettings

Given = dict[str, Any]


class Maker(Protocol):
    """Makes something of every step: a task of a pipeline, or what is known of its result.

    Attributes:
        grouped: whether a step works for several cells, or raters: it gets a list of their settings, and makes one
            artifact with theirs in it.
    """

    grouped: bool

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
        """A step; returns its artifact `output`.

        Args:
            component: the Kubeflow component.
            output: the output that others take; empty: none.
            pod: the kind of pod that it gets; if not given, the component's own.
            title: what it is called, where a component stands for several.
            once: it only says how the run went, so it is neither cached nor tried again.
            timeout: seconds, other than its kind of pod has.
            inputs: settings and artifacts by the names that the component gives them.
        """

    def each(self, items: Any, body: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Let `body` make the steps for every item; returns its artifacts, of which `all_of` makes those of all items.

        Fields of an item, where it has some, are its attributes.
        """

    def all_of(self, made: Any) -> Any:
        """The artifacts of all items of an `each`."""


def data_selection(make: Maker, given: Given, fixed: CompileSettings) -> None:
    """The steps from raw data to subsets and a report. `given`: the pipeline's parameters; `fixed`: its shape."""
    made = _rated_and_curated(make, given, fixed)
    if make.grouped:
        selection = _selected(make, made, given["subsets"])
        known = _known(make, made, given)
        _ended(make, make.step(report_on_subsets, "report", selection=selection, **known), given)
        return
    cells = make.each(given["subsets"], lambda subset: {"selection": _selected(make, made, subset)})
    selections = make.all_of(cells["selection"])
    _ended(make, make.step(write_report, "report", selections=selections, **_known(make, made, given)), given)


def experiment(make: Maker, given: Given, fixed: CompileSettings) -> None:
    """The steps from raw data to finetuned, evaluated models and a report; arguments as of `data_selection`."""
    made = _rated_and_curated(make, given, fixed)

    def untrained(base: Any) -> dict[str, Any]:
        return {"evaluation": make.step(evaluate, "evaluation", **_own(make, {}, base))}

    def cell(item: Any) -> dict[str, Any]:
        selection = _selected(make, made, item.subset)
        model = _finetuned(make, selection, item.finetuning, given, fixed)
        own = _own(make, given["evaluation"], item.evaluation if make.grouped else given["evaluation"])
        scored = make.step(evaluate, "evaluation", model=model, **own)
        parts = {"selection": selection, "model": model, "evaluation": scored}
        if fixed.judging:
            own = _own(make, given.get("judging"), item.judging)
            parts["judgement"] = make.step(judge, "judgement", model=model, **own)
        return parts

    bases = make.each(given["bases"], untrained)
    cells = make.each(given["cells"], cell)
    inputs = {"selections": "selection", "models": "model", "evaluations": "evaluation", "judgements": "judgement"}
    results = {name: make.all_of(cells[kind]) for name, kind in inputs.items() if kind in cells}
    results["base_evaluations"] = make.all_of(bases["evaluation"])
    _ended(make, make.step(write_report, "report", **results, **_known(make, made, given)), given)


def _own(make: Maker, common: Any, own: Any) -> Given:
    """The inputs of a step with its settings: `own`; or those of several cells, and what is `common` to them."""
    return {"settings": common, "cells": own} if make.grouped else {"settings": own}


def _known(make: Maker, made: Given, given: Given) -> Given:
    """The inputs of the report that every run has."""
    ratings = make.all_of(made["ratings"])
    known = {"pool": made["pool"], "ratings": ratings, "curation": made["curation"], "settings": given["report"]}
    return known | _signals(made)


def _signals(made: Given) -> Given:
    """The input of steps that use signals, if the run has them."""
    return {"signals": made["signals"]} if "signals" in made else {}


def _ended(make: Maker, report: Any, given: Given) -> None:
    """The step that fails if the report says that a cell has failed."""
    make.step(require_all_cells, report=report, outcomes=given.get("outcomes", ""), once=True)


def _rated_and_curated(make: Maker, given: Given, fixed: CompileSettings) -> Given:
    """The steps that both pipelines begin with; returns their artifacts by kind."""
    samples = make.step(assemble_pool, "pool", settings=given["pool"])
    if fixed.near_copies:
        samples = make.step(drop_near_copies, "pool", samples=samples, settings=given["near_copies"])
    signals = {}
    if fixed.describe:
        signals["signals"] = make.step(describe, "signals", pool=samples, settings=given["describe"])
    embeddings = make.step(embed, "embeddings", pool=samples, settings=given["embedding"])
    graph = make.step(find_neighbors, "neighbors", embeddings=embeddings, settings=given["neighbors"])
    ratings = _rated(make, samples, given, fixed)
    curation = make.step(
        curate,
        "curation",
        ratings=make.all_of(ratings),
        neighbors=graph,
        pool=samples,
        embeddings=embeddings,
        settings=given["curation"],
    )
    made = {"pool": samples, "embeddings": embeddings, "neighbors": graph, "ratings": ratings, "curation": curation}
    scores = {}
    for name in fixed.scores:
        component = influence if name == "influence" else score
        scores[name] = make.step(
            component,
            "scores",
            pod=SCORE_PODS[name],
            title=name,
            pool=samples,
            settings=given[name],
            **({"attempt": given["attempts"][name]} if make.grouped else {}),
        )
    return made | signals | {"scores": scores}


def _rated(make: Maker, samples: Any, given: Given, fixed: CompileSettings) -> Any:
    """The ratings of each rater, made by a pod each; where raters may have several, by way of their parts."""

    def rated(settings: Any) -> dict[str, Any]:
        return {"ratings": make.step(rate, "ratings", pool=samples, settings=settings)}

    def rated_together(raters: Any) -> dict[str, Any]:
        return {"ratings": make.step(rate, "ratings", pool=samples, settings={}, raters=raters)}

    if not fixed.sharded:
        return make.each(given["raters"], rated_together if make.grouped else rated)["ratings"]
    workers = make.each(given["workers"], rated)
    parts = make.step(gather_ratings, "parts", ratings=make.all_of(workers["ratings"]))

    def merged(settings: Any) -> dict[str, Any]:
        return {"ratings": make.step(merge_ratings, "ratings", pool=samples, parts=parts, settings=settings)}

    return make.each(given["raters"], merged)["ratings"]


def _selected(make: Maker, made: Given, subset: Any) -> Any:
    inputs = {name: made[name] for name in ("pool", "curation", "neighbors", "embeddings")}
    return make.step(select, "selection", **inputs, **made["scores"], **_signals(made), **_own(make, {}, subset))


def _finetuned(make: Maker, selected: Any, settings: Any, given: Given, fixed: CompileSettings) -> Any:
    """The model that is trained on a subset, by a pod or by the TrainJob that a pod makes."""
    inputs = {"selection": selected, **_own(make, given.get("finetuning"), settings)}
    if not fixed.trainer:
        return make.step(finetune, "model", **inputs)
    timeout = fixed.timeouts.training
    return make.step(finetune_on_trainer, "model", **inputs, trainer=given["trainer"], timeout=timeout)


CHAINS: dict[str, Callable[[Maker, Given, CompileSettings], None]] = {
    "data-selection": data_selection,
    "experiment": experiment,
}
