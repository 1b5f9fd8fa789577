"""The rates that a plan calculates with, and how they scale with a model's size."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from pydantic import Field

from tamis.core.settings import Settings

_REFERENCE = 8.0  # the rates are for a model with this many billion parameters


class RatesSettings(Settings):
    """The rates that `tamis plan` calculates with. Replace them with your own measurements.

    Rates are for one GPU and a model of 8 billion parameters. They scale with the size of a model if its folder or name
    shows it. A run uses them only to divide its `budget`.
    """

    samples: int | None = Field(
        None,
        ge=1,
        description="samples in the pool, if there is none yet; null: as in an earlier run, or the rows of the sources",
    )
    tokens_per_sample: float = Field(300, gt=0, description="mean tokens per sample (assumed)")
    rated_per_second: float = Field(
        25, gt=0, description="samples rated per second (measured, 8B on an H100; benchmarks/results/gpu.md)"
    )
    embedded_per_second: float = Field(
        760, gt=0, description="samples embedded per second (measured, bge-large on an H100)"
    )
    scored_per_second: float = Field(
        40, gt=0, description="samples scored by perplexity per second (measured, 8B on an H100)"
    )
    gradients_per_second: float = Field(
        5, gt=0, description="samples per second for LESS's gradients at one checkpoint (assumed)"
    )
    trained_tokens_per_second: float = Field(
        6000, gt=0, description="tokens trained per second (assumed, LoRA of 8B on an H100)"
    )
    evaluation_hours: float = Field(
        1.5, gt=0, description="GPU hours to evaluate 8B on the suite paper (assumed); change it for other suites"
    )
    gpu_hour: float = Field(2.5, ge=0, description="price of a GPU hour (assumed)")
    prompt_tokens: float = Field(330, ge=0, description="tokens of the rating prompt without the sample (assumed)")
    answer_tokens: float = Field(40, ge=0, description="tokens of a rater's answer (assumed)")
    judged_prompts: int = Field(
        300, ge=1, description="prompts of all judged sets, if one of them has no limit (assumed)"
    )
    written_tokens: float = Field(400, gt=0, description="tokens of an answer to judge (assumed)")
    written_per_second: float = Field(
        2500, gt=0, description="tokens of such answers per second (assumed, 8B in vLLM on an H100)"
    )
    input_price: float = Field(
        0.15, ge=0, description="price of a million tokens sent to a service that has no `price` (assumed)"
    )
    output_price: float = Field(
        0.60, ge=0, description="price of a million tokens received from a service that has no `price` (assumed)"
    )
    currency: str = Field("USD", description="currency of the prices")


class UsedRates:
    """Rates that remember which of them were used."""

    def __init__(self, rates: RatesSettings) -> None:
        self._rates, self.names = rates, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.names.add(name)
        return getattr(self._rates, name)


def relative(model: str) -> float:
    """Return a model's size relative to that of the rates; 1 if neither its folder nor its name shows it."""
    weights = list(Path(model).glob("*.safetensors")) if Path(model).is_dir() else []
    if weights:
        return sum(map(_parameters, weights)) / (_REFERENCE * 1e9)
    found = re.search(r"(?:^|[-_/])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", model, flags=re.IGNORECASE)
    if found is None:
        return 1.0
    return float(found[1]) * (1.0 if found[2].lower() == "b" else 0.001) / _REFERENCE


def _parameters(weights: Path) -> int:
    """Count the numbers in a file of weights by its header (https://github.com/huggingface/safetensors#format)."""
    with weights.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
