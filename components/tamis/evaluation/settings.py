"""Settings of the evaluation stage."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from tamis.core.models import Precision
from tamis.core.references import HubModel, LocalFolder, Reference
from tamis.core.settings import StageSettings


def _suite_read(settings: EvaluationSettings) -> str:
    from tamis.evaluation.suite import open_suite  # which is made of these settings

    suite, _ = open_suite(settings)
    return f"{settings.suite}, {len(suite.tasks)} tasks"


class EvaluationSettings(StageSettings):
    """On what, and how, a model is evaluated."""

    OUTPUT_REVISION: ClassVar[int] = 1

    model: HubModel = Field(
        "meta-llama/Llama-3.1-8B",
        description="model that is evaluated when no trained one is given: a hub name or a folder",
        min_length=1,
    )
    name: str = Field(
        "base",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="what the evaluation of that model is called; a trained one keeps its own name",
    )
    revision: str | None = Field(None, description="commit or tag of the hub model")
    suite: Annotated[str, Reference("shipped", _suite_read)] = Field(
        "paper", description="paper, quick, or the path of a suite (YAML)", min_length=1
    )
    data_dir: LocalFolder | None = Field(
        None, description="folder of tasks' relative data_files; null: as the suite says, else where its tasks lie"
    )
    backend: Literal["hf", "vllm"] = Field("hf", description="lm-eval's model class; hf: transformers; vllm: vLLM")
    batch_size: int = Field(8, ge=1, description="requests per forward pass; vllm makes its own batches")
    max_length: int | None = Field(
        None, ge=64, description="tokens of prompt and answer; longer prompts lose their start; null: the model's own"
    )
    gpus: int = Field(1, ge=1, description="vllm: GPUs that the model is spread over")
    gpu_memory_share: float = Field(0.9, gt=0, le=1, description="vllm: share of the GPUs' memory that it takes")
    precision: Precision = Field("auto", description="auto: bfloat16 on a GPU, float32 on a CPU")
    limit: int | None = Field(None, ge=1, description="only the first so many of each task, whatever the suite says")
    samples: int | None = Field(None, ge=1, description="so many of each task, drawn by seed, whatever the suite says")
    apply_chat_template: bool = Field(False, description="ask in the model's chat template; the paper asks plainly")
    seed: int = Field(42, ge=0, description="of drawn subsets, few-shot examples and sampled answers")

    @model_validator(mode="after")
    def _one_choice_of_samples(self) -> EvaluationSettings:
        if self.limit is not None and self.samples is not None:
            raise ValueError("limit and samples exclude each other; allowed: one of them, or none")
        return self

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> EvaluationSettings:
        for name in ("gpus", "gpu_memory_share"):
            if self.backend != "vllm" and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} has an effect with backend: vllm only; leave it out")
        return self
