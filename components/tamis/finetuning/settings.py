"""Settings of the finetuning stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from tamis.core.conversations import Format
from tamis.core.errors import SettingsError
from tamis.core.leftout import MOST_LEFT_OUT
from tamis.core.models import Precision
from tamis.core.references import Reference, TrainedModel
from tamis.core.settings import Settings, StageSettings, load_yaml

DEEPSPEED = Path(__file__).parent / "deepspeed"
_FORMATS = (".yaml", ".yml", ".json")  # JSON is valid YAML, so one reader serves all


def _deepspeed_read(settings: FinetuningSettings) -> str:
    file = settings.deepspeed_file
    if file is None:
        return ""
    return f"{settings.deepspeed} sets {', '.join(load_yaml(file))}"


def _presets() -> dict[str, Path]:
    """The presets' files by name."""
    return {
        path.stem: path for path in sorted((Path(__file__).parent / "presets").glob("*.yaml"), key=lambda p: p.stem)
    }


class LoraSettings(Settings):
    """The adapter: its size, and the modules that get one."""

    rank: int = Field(64, ge=1, description="inner dimension of the adapter's matrices")
    alpha: int = Field(16, ge=1, description="the update is scaled by alpha / rank")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of the adapter's inputs that training sets to zero")
    targets: list[str] | Literal["all-linear"] = Field(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        description="names of the modules to adapt, or all-linear: every linear module except the output head",
        min_length=1,
    )
    layers: int | None = Field(
        None, ge=1, description="adapt only the last N layers; null: all layers; not with targets: all-linear"
    )

    @model_validator(mode="after")
    def _layers_have_names(self) -> LoraSettings:
        if self.layers is not None and self.targets == "all-linear":
            raise ValueError("'layers' cannot be used with targets: all-linear; list the modules in 'targets'")
        return self


class FinetuningSettings(StageSettings):
    """How a base model is trained on a subset; the defaults are the paper's."""

    OUTPUT_REVISION: ClassVar[int] = 1

    preset: str | None = Field(
        None, description="named set of values, paper or paper-alpaca; settings that you give override it"
    )
    model: TrainedModel = Field(
        "meta-llama/Llama-3.1-8B",
        description="base model: a name on the Hugging Face Hub, or a folder in its layout",
        min_length=1,
    )
    revision: str | None = Field(None, description="commit or tag of a model on the Hub; null: the newest")
    method: Literal["lora", "qlora", "full"] = Field(
        "lora",
        description="lora: train an adapter; qlora: the same with frozen weights in four bits; full: train all weights",
    )
    lora: LoraSettings = Field(default_factory=LoraSettings, description="used by the methods lora and qlora")
    format: Format = Field(
        "tulu", description="tulu: <|user|> and <|assistant|> headers; chat: the model's own chat template"
    )
    max_tokens: int = Field(2048, ge=8, description="longer samples are cut at the end")
    max_left_out_share: float = MOST_LEFT_OUT
    epochs: int = Field(5, ge=1, description="passes over the subset")
    batch_size: int = Field(128, ge=1, description="samples per optimizer step")
    micro_batch_size: int = Field(4, ge=1, description="samples per forward pass; must divide batch_size")
    learning_rate: float = Field(1e-4, gt=0, description="peak learning rate of AdamW")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="learning rate after the warm-up")
    warmup_ratio: float = Field(
        0.03, ge=0, lt=1, description="share of the steps during which the learning rate rises from 0"
    )
    weight_decay: float = Field(0.0, ge=0, description="weight decay of AdamW")
    max_grad_norm: float = Field(1.0, ge=0, description="gradients with a larger norm are scaled to it; 0: no limit")
    precision: Precision = Field("auto", description="auto: bfloat16 on a GPU, float32 on a CPU")
    save_precision: Precision = Field(
        "auto", description="precision of the saved model; auto: the precision of its weights during training"
    )
    gradient_checkpointing: bool = Field(
        False, description="recompute activations in the backward pass: less memory, about a third slower"
    )
    packing: bool = Field(
        False, description="put several samples into one row of tokens, without letting them see each other"
    )
    save_every_minutes: float = Field(10.0, gt=0, description="minutes between checkpoints")
    save_every_steps: int | None = Field(
        None, ge=1, description="also save a checkpoint every N steps; null: by time only"
    )
    processes: int | None = Field(
        None, ge=1, description="training processes per node; null: one per visible GPU, or one on a CPU"
    )
    deepspeed: Annotated[str, Reference("shipped", _deepspeed_read)] | None = Field(
        None, description="zero2, zero3 or the path of a DeepSpeed configuration (YAML or JSON); null: no DeepSpeed"
    )
    seed: int = Field(
        42, ge=0, description="random seed of the adapter's initial weights, the order of samples and dropout"
    )

    def accumulation(self, processes: int) -> int:
        """Return how many forward passes each of `processes` does per optimizer step.

        Raises:
            SettingsError: when the processes cannot share a batch evenly.
        """
        passes = self.batch_size // self.micro_batch_size
        if passes % processes:
            raise SettingsError(
                f"finetuning.batch_size is {self.batch_size}, which is not a multiple of "
                f"micro_batch_size {self.micro_batch_size} times {processes} processes",
                allowed="with these batch sizes a total of "
                + ", ".join(str(count) for count in range(1, passes + 1) if passes % count == 0)
                + " processes",
                action="change finetuning.batch_size, micro_batch_size or the number of processes",
            )
        return passes // processes

    @property
    def deepspeed_file(self) -> Path | None:
        """The DeepSpeed configuration, if one is used."""
        if self.deepspeed is None:
            return None
        return DEEPSPEED / f"{self.deepspeed}.yaml" if self.deepspeed in ("zero2", "zero3") else Path(self.deepspeed)

    @model_validator(mode="before")
    @classmethod
    def _given_over_preset(cls, values: Any) -> Any:
        name = values.get("preset") if isinstance(values, dict) else None
        if name is None:
            return values
        known = _presets()
        if name not in known:
            raise ValueError(f"preset: seen {name!r}; allowed: {', '.join(known)}")
        preset = load_yaml(known[name])
        both = preset | values
        if isinstance(values.get("lora"), dict):
            both["lora"] = preset.get("lora", {}) | values["lora"]
        return both

    @model_validator(mode="after")
    def _micro_batches_fill_the_batch(self) -> FinetuningSettings:
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size is {self.batch_size}, which is not a multiple of micro_batch_size {self.micro_batch_size}"
            )
        return self

    @field_validator("deepspeed")
    @classmethod
    def _deepspeed_is_known(cls, value: str | None) -> str | None:
        if value is not None and value not in ("zero2", "zero3") and Path(value).suffix not in _FORMATS:
            raise ValueError(f"allowed: zero2, zero3, or a path that ends in {', '.join(_FORMATS)}")
        return value
