"""Settings of the influence stage."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator

from tamis.core.conversations import Format
from tamis.core.leftout import MOST_LEFT_OUT
from tamis.core.models import Precision
from tamis.core.references import DataPath, TrainedModel
from tamis.core.settings import Settings, StageSettings


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise ValueError("allowed: a power of two, such as 8192")
    return value


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


class TaskSettings(Settings):
    """A task that training should help with, described by a few examples."""

    name: str = Field(description="name of the task", min_length=1)
    path: DataPath = Field(
        description="JSONL file with the task's examples, local or in object storage; each line has messages, or "
        "prompt and completion, and optionally subtask",
        min_length=1,
    )


class WarmupSettings(Settings):
    """The short training at whose checkpoints gradients are computed (LESS, section 4.1)."""

    size: Annotated[int | float, BeforeValidator(_whole)] = Field(
        0.05, gt=0, description="randomly drawn samples: a number, or below 1 a share of the pool"
    )
    epochs: int = Field(4, ge=1, description="passes over these samples; each ends with a checkpoint")
    batch_size: int = Field(128, ge=1, description="samples per optimizer step")
    learning_rate: float = Field(2e-5, gt=0, description="peak learning rate of AdamW; it decays linearly to 0")
    warmup_ratio: float = Field(
        0.03, ge=0, lt=1, description="share of the steps during which the learning rate rises from 0"
    )
    rank: int = Field(128, ge=1, description="inner dimension of the LoRA matrices")
    alpha: int = Field(512, ge=1, description="the update is scaled by alpha / rank")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of the adapter's inputs that training sets to zero")
    targets: list[str] = Field(
        ["q_proj", "k_proj", "v_proj", "o_proj"], description="names of the modules to adapt", min_length=1
    )
    layers: int | None = Field(None, ge=1, description="adapt only the last N layers; null: all layers")


class InfluenceSettings(StageSettings):
    """LESS: influence of samples on tasks by low-rank gradients; the defaults are the published ones."""

    OUTPUT_REVISION: ClassVar[int] = 1

    model: TrainedModel = Field(
        "meta-llama/Llama-3.1-8B", description="base model: a name on the Hugging Face Hub, or a folder in its layout",
        min_length=1,
    )  # fmt: skip
    revision: str | None = Field(None, description="commit or tag of a model on the Hub; null: the newest")
    tasks: list[TaskSettings] = Field(min_length=1, description="the tasks that training should help with")
    warmup: WarmupSettings = Field(
        WarmupSettings(), description="the short training at whose checkpoints gradients are computed"
    )
    format: Format = Field(
        "tulu", description="tulu: <|user|> and <|assistant|> headers; chat: the model's own chat template"
    )
    max_tokens: int = Field(2048, ge=8, description="longer samples are cut at the end")
    max_left_out_share: float = MOST_LEFT_OUT
    batch_tokens: int = Field(4096, ge=1, description="tokens per forward pass, with padding; limits memory")
    dimensions: Annotated[int, BeforeValidator(_whole)] = Field(
        8192, ge=64, description="length of the projected gradients; a power of two"
    )
    projection: Literal["rademacher", "sketch"] = Field(
        "rademacher",
        description="rademacher: dense random signs, as published; sketch: the same accuracy on average, much faster",
    )
    precision: Precision = Field("auto", description="auto: bfloat16 on a GPU, float32 on a CPU")
    seed: int = Field(
        0, ge=0, lt=2**31, description="random seed of the warm-up's samples and training, and of the projection"
    )

    _dimensions = field_validator("dimensions")(_power_of_two)

    @field_validator("tasks")
    @classmethod
    def _names_differ(cls, tasks: list[TaskSettings]) -> list[TaskSettings]:
        if len({task.name for task in tasks}) < len(tasks):
            raise ValueError("two tasks have the same name; allowed: a different name for each task")
        return tasks
