"""The two Kubeflow pipelines. Each parameter is one section of the settings file (`settings.RunSettings`)."""

from collections.abc import Callable
from typing import Any, List  # noqa: UP035  kfp reads typing.List only

from kfp import dsl

from tamis.curation.component import curate
from tamis.embedding.component import embed
from tamis.evaluation.component import evaluate
from tamis.finetuning.component import finetune
from tamis.neighbors.component import find_neighbors
from tamis.pool.component import pool as assemble_pool
from tamis.rating.component import rate
from tamis.reporting.component import report as write_report
from tamis.selection.component import select


def _rated_and_curated(
    pool: Any, raters: Any, embedding: Any, neighbors: Any, curation: Any, parallelism: int
) -> dict[str, Any]:
    """The steps that both pipelines begin with; returns their artifacts by kind."""
    samples = assemble_pool(settings=pool).outputs["pool"]
    vectors = embed(pool=samples, settings=embedding).outputs["embeddings"]
    graph = find_neighbors(embeddings=vectors, settings=neighbors).outputs["neighbors"]
    with dsl.ParallelFor(raters, parallelism=parallelism) as rater:
        rated = rate(pool=samples, settings=rater)
    # kfp changes a Collected when a task takes it, so every task gets one of its own.
    ratings = rated.outputs["ratings"]
    curated = curate(ratings=dsl.Collected(ratings), neighbors=graph, settings=curation).outputs["curation"]
    return {"pool": samples, "neighbors": graph, "ratings": ratings, "curation": curated}


def data_selection(parallelism: int = 0) -> Any:
    """The pipeline from raw data to subsets and a report.

    `parallelism` bounds how many raters, and how many subsets, are worked on at once; 0 sets no bound.
    """

    @dsl.pipeline(name="data-selection", description="Rate a pool, curate the ratings, select subsets, report.")
    def pipeline(
        pool: dict,
        raters: List[dict],  # noqa: UP006
        embedding: dict,
        neighbors: dict,
        curation: dict,
        subsets: List[dict],  # noqa: UP006
        report: dict,
    ) -> None:
        made = _rated_and_curated(pool, raters, embedding, neighbors, curation, parallelism)
        with dsl.ParallelFor(subsets, parallelism=parallelism) as subset:
            selected = select(
                pool=made["pool"], curation=made["curation"], neighbors=made["neighbors"], settings=subset
            )
        write_report(
            pool=made["pool"],
            ratings=dsl.Collected(made["ratings"]),
            curation=made["curation"],
            selections=dsl.Collected(selected.outputs["selection"]),
            settings=report,
        )

    return pipeline


def experiment(parallelism: int = 0) -> Any:
    """The pipeline from raw data to finetuned, evaluated models and a report; `parallelism` as in `data_selection`."""

    @dsl.pipeline(
        name="experiment",
        description="Select subsets, finetune a model on each, evaluate them beside the base, report.",
    )
    def pipeline(
        pool: dict,
        raters: List[dict],  # noqa: UP006
        embedding: dict,
        neighbors: dict,
        curation: dict,
        subsets: List[dict],  # noqa: UP006
        finetuning: dict,
        evaluation: dict,
        report: dict,
    ) -> None:
        made = _rated_and_curated(pool, raters, embedding, neighbors, curation, parallelism)
        base = evaluate(settings=evaluation)
        with dsl.ParallelFor(subsets, parallelism=parallelism) as subset:
            selected = select(
                pool=made["pool"], curation=made["curation"], neighbors=made["neighbors"], settings=subset
            )
            tuned = finetune(selection=selected.outputs["selection"], settings=finetuning)
            scored = evaluate(model=tuned.outputs["model"], settings=evaluation)
        write_report(
            pool=made["pool"],
            ratings=dsl.Collected(made["ratings"]),
            curation=made["curation"],
            selections=dsl.Collected(selected.outputs["selection"]),
            models=dsl.Collected(tuned.outputs["model"]),
            evaluations=dsl.Collected(scored.outputs["evaluation"]),
            base_evaluation=base.outputs["evaluation"],
            settings=report,
        )

    return pipeline


PIPELINES: dict[str, Callable[..., Any]] = {"data-selection": data_selection, "experiment": experiment}
