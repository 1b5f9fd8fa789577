"""Every setting of a run that refers to a file, a folder, a model or a data set says so by its type."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, Field

pytest.importorskip("kfp")

from tamis.core.references import references_of
from tamis.core.settings import Settings, all_fields, models_in
from tamis_pipelines.settings import RunSettings

# Settings that are texts and nothing more. A new one that names a file, a folder, a model or a data set belongs to a
# type of `core.references` instead: then `tamis doctor`, submitted runs and TrainJobs look at it.
PLAIN = {
    "NearCopiesSettings.rated_by",
    *("_UpToCuration.name", "Source.name", "RatingSettings.name", "EvaluationSettings.name", "_AllStrategies.name"),
    *(
        "TaskSettings.name",
        "PromptSet.name",
        "ModelContestant.name",
        "ServiceContestant.name",
        "AnswersContestant.name",
    ),
    *("Source.recipe", "Source.config", "Source.split", "PromptSet.config", "PromptSet.split"),
    *("Source.encoding", "Source.delimiter", "_AllStrategies.where"),
    *("Source.fields", "Source.where", "Source.keep", "PromptSet.fields", "AnswersContestant.fields"),
    *("AnswersContestant.answer", "AnswersContestant.written_by"),
    *("ImportSettings.key", "ImportSettings.field", "ImportSettings.source", "ImportSettings.source_column"),
    *("ImportSettings.overall", "ImportSettings.rarity", "ImportSettings.complexity", "ImportSettings.informativeness"),
    *("ImportSettings.expected", "GradesSettings.column", "GradesSettings.key", "GradesSettings.field"),
    *("ReportingSettings.title", "ReportingSettings.truth", "ReportingSettings.group", "ReportingSettings.notes"),
    *("_AllStrategies.rater", "SelectionSettings.task", "_AllStrategies.sources", "ExperimentSettings.raters"),
    # A model's name at a service, and how the service is reached.
    *("BackendSettings.model", "ServiceSettings.model", "ServiceSettings.base_url", "ServiceSettings.api_key_env"),
    *("AzureSettings.api_version", "AzureSettings.deployment", "OpenAISettings.extra", "ServiceContestant.extra"),
    # What vLLM takes; a file or folder in these is vLLM's own affair.
    *("VllmSettings.quantization", "VllmSettings.engine", "AnswerSettings.engine_arguments"),
    *("FinetuningSettings.preset", "LoraSettings.targets", "WarmupSettings.targets"),
    *("AskedRater.shard", "NeighborsSettings.shard", "RatesSettings.currency"),
    "CellsJudging.opponents",
    *("TrainerSettings.runtime", "TrainerSettings.queue", "TrainerSettings.image", "TrainerSettings.cpu"),
    *("TrainerSettings.memory", "TrainerSettings.gpu_type", "TrainerSettings.node_selector"),
    "TrainerSettings.tolerations",
}
# Names of Kubernetes' objects, quantities and labels; the files of a run in pods are in the other sections.
OF_PODS = {"Pod", "GpuPod", "Toleration", "Objects", "KubeflowSettings", "CompileSettings", "Retries"}


def test_every_text_is_typed_or_known_to_be_plain() -> None:
    texts = {
        f"{owner.__name__}.{name}"
        for model in models_below(RunSettings, set())
        for name, field in model.model_fields.items()
        if holds_text(field.annotation) and name not in references_of(model)
        for owner in [next(one for one in reversed(model.__mro__) if name in getattr(one, "model_fields", {}))]
        if owner.__name__ not in OF_PODS and not name.endswith("revision")
    }
    assert texts - PLAIN == set(), "say by a type of core.references what they refer to, or list them as plain"
    assert PLAIN - texts - {"CellsJudging.opponents"} == set(), "these are typed, or gone"


def test_the_check_above_sees_an_untyped_path() -> None:
    class New(Settings):
        somewhere: str | None = None
        listed: tuple[Path, ...] = ()
        free: dict[str, Any] = Field({})
        number: int = 1

    assert [name for name, field in New.model_fields.items() if holds_text(field.annotation)] == [
        *("somewhere", "listed", "free")
    ]


def models_below(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    if model in seen:
        return
    seen.add(model)
    yield model
    for field in all_fields(model).values():
        for inner in (*vars(model).get("VARIANTS", ()), *models_in(field.annotation)):
            yield from models_below(inner, seen)


def holds_text(annotation: Any) -> bool:
    """Whether a value may be any text or path; a choice of literals is none."""
    return annotation in (str, Any) or annotation is Path or any(holds_text(inner) for inner in get_args(annotation))
