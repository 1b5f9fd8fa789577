"""Settings of the evaluation stage."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from tamis.core.models import Precision
from tamis.core.references import HubModel, LocalFolder, Reference
from tamis.core.settings import StageSettings


def _suite_read(settings: EvaluationSettings) -> str:
    from tamis.evaluation.suite import open_suite  # imports this module

    suite, _ = open_suite(settings)
    return f"{settings.suite}, {len(suite.tasks)} tasks"


class EvaluationSettings(StageSettings):
    """What a model is evaluated on, and how."""

    OUTPUT_REVISION: ClassVar[int] = 1

    model: HubModel = Field(
        "meta-llama/Llama-3.1-8B",
        description="model to evaluate if no trained one is given: a name on the Hugging Face Hub, or a folder",
        min_length=1,
    )
    name: str = Field(
        "base",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="name of that model's evaluation; a trained model's evaluation has the model's own name",
    )
    revision: str | None = Field(None, description="commit or tag of a model on the Hub; null: the newest")
    suite: Annotated[str, Reference("shipped", _suite_read)] = Field(
        "paper", description="paper, quick or the path of a suite (YAML)", min_length=1
    )
    data_dir: LocalFolder | None = Field(
        None,
        description="folder that relative data_files of tasks refer to; null: the suite's data_dir, or the folder of "
        "its tasks",
    )
    backend: Literal["hf", "vllm"] = Field("hf", description="lm-eval's model class: hf (transformers) or vllm (vLLM)")
    batch_size: int = Field(8, ge=1, description="requests per forward pass; vllm chooses its own batches")
    max_length: int | None = Field(
        None,
        ge=64,
        description="most tokens of prompt and answer together; longer prompts lose their start; null: the model's "
        "limit",
    )
    gpus: int = Field(1, ge=1, description="vllm: number of GPUs that share the model")
    gpu_memory_share: float = Field(
        0.9, gt=0, le=1, description="vllm: share of each GPU's memory to use; without a GPU, of the machine's memory"
    )
    precision: Precision = Field("auto", description="auto: bfloat16 on a GPU, float32 on a CPU")
    limit: int | None = Field(
        None, ge=1, description="ask only the first N questions of each task, whatever the suite says; for trial runs"
    )
    samples: int | None = Field(
        None, ge=1, description="ask N questions of each task, drawn by seed, whatever the suite says"
    )
    apply_chat_template: bool = Field(
        False, description="prompt the model in its chat template; the paper's prompts are plain text"
    )
    seed: int = Field(42, ge=0, description="random seed of the drawn questions, few-shot examples and sampled answers")

    @model_validator(mode="after")
    def _one_choice_of_samples(self) -> EvaluationSettings:
        if self.limit is not None and self.samples is not None:
            raise ValueError("limit and samples cannot be used together; allowed: one of them, or neither")
        return self

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> EvaluationSettings:
        for name in ("gpus", "gpu_memory_share"):
            if self.backend != "vllm" and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} only has an effect with backend: vllm; remove it")
        return self
