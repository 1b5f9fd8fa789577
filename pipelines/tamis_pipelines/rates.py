"""The rates that a plan calculates with, and how models of other sizes count."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from pydantic import Field

from tamis.core.settings import Settings

_REFERENCE = 8.0  # billions of parameters of the model that the rates are of


class RatesSettings(Settings):
    """The rates that `tamis plan` calculates with; put your own measurements in their place.

    Rates are of one GPU and of a model of 8 billion parameters; other sizes, where a model's folder or name tells them,
    count in proportion. A run looks at them only to share out its `budget`.
    """

    samples: int | None = Field(
        None,
        ge=1,
        description="samples of a pool not made yet; left out: those of an earlier run, or the sources'",
    )
    tokens_per_sample: float = Field(300, gt=0, description="assumed: mean tokens of a sample")
    rated_per_second: float = Field(
        25, gt=0, description="measured on an H100, 8B (benchmarks/results/gpu.md): samples"
    )
    embedded_per_second: float = Field(760, gt=0, description="measured on an H100, bge-large: samples")
    scored_per_second: float = Field(40, gt=0, description="measured on an H100, 8B, perplexity: samples")
    gradients_per_second: float = Field(5, gt=0, description="assumed, for LESS: samples of one checkpoint")
    trained_tokens_per_second: float = Field(6000, gt=0, description="assumed, LoRA of 8B on an H100: tokens")
    evaluation_hours: float = Field(
        1.5, gt=0, description="assumed: GPU hours of an evaluation of 8B on the suite paper; set it for another suite"
    )
    gpu_hour: float = Field(2.5, ge=0, description="assumed: price of a GPU hour")
    prompt_tokens: float = Field(330, ge=0, description="assumed: tokens of the rating prompt around a sample")
    answer_tokens: float = Field(40, ge=0, description="assumed: tokens of a rater's answer")
    judged_prompts: int = Field(300, ge=1, description="assumed, where a prompt set has no limit: prompts of all sets")
    written_tokens: float = Field(400, gt=0, description="assumed: tokens of an answer that is judged")
    written_per_second: float = Field(2500, gt=0, description="assumed, 8B by vLLM on an H100: tokens of such answers")
    input_price: float = Field(
        0.15, ge=0, description="assumed, where a rater or judging has no price: of a million tokens sent to a service"
    )
    output_price: float = Field(
        0.60, ge=0, description="assumed, where they have none: price of a million tokens that a service answers"
    )
    currency: str = Field("USD", description="of the prices")


class UsedRates:
    """Rates that remember which of them were asked for."""

    def __init__(self, rates: RatesSettings) -> None:
        self._rates, self.names = rates, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.names.add(name)
        return getattr(self._rates, name)


def relative(model: str) -> float:
    """The size of a model against the one that the rates are of; 1 where neither its folder nor its name tells it."""
    weights = list(Path(model).glob("*.safetensors")) if Path(model).is_dir() else []
    if weights:
        return sum(map(_parameters, weights)) / (_REFERENCE * 1e9)
    found = re.search(r"(?:^|[-_/])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", model, flags=re.IGNORECASE)
    if found is None:
        return 1.0
    return float(found[1]) * (1.0 if found[2].lower() == "b" else 0.001) / _REFERENCE


def _parameters(weights: Path) -> int:
    """How many numbers a file of weights holds, by its header (https://github.com/huggingface/safetensors#format)."""
    with weights.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
