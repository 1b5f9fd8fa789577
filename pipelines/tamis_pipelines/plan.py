"""What a run would do, and what that would take at stated rates. Read are settings, counts of rows and lists of ids."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field

from tamis.core.artifacts import manifest_of
from tamis.core.errors import SettingsError
from tamis.core.idfiles import read_ids
from tamis.core.llm.settings import PriceSettings, ServiceSettings
from tamis.core.settings import Settings
from tamis.core.storage import is_remote
from tamis.finetuning.settings import FinetuningSettings
from tamis.judging.settings import ServiceContestant
from tamis.pool.settings import PoolSettings, Source
from tamis.pool.sources import count_rows, recipe_of
from tamis.rating.settings import RatingSettings

if TYPE_CHECKING:
    from tamis_pipelines.experiment import Cell, CellsJudging
    from tamis_pipelines.settings import RunSettings

_MANY = 50  # cells; Kubeflow is known to work with fan-outs in the tens
_REFERENCE = 8.0  # billions of parameters of the model that the rates are of


class RatesSettings(Settings):
    """The rates that `tamis plan` calculates with; put your own measurements in their place.

    Rates are of one GPU and of a model of 8 billion parameters; other sizes, where a model's folder or name tells them,
    count in proportion. No run looks at them.
    """

    samples: int | None = Field(
        None, ge=1, description="samples in the pool; left out: those of an earlier run, or the sources' rows, counted"
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


@dataclass(frozen=True)
class Line:
    """A kind of step: how many there are, what each works on, and what all of them take."""

    step: str
    count: int
    work: str
    gpu_hours: float
    money: float


@dataclass(frozen=True)
class Plan:
    """All steps of a run."""

    samples: int
    lines: list[Line]
    cells: list[tuple[Cell, float]]
    """Each with the GPU hours of its training."""
    rates: RatesSettings
    used: list[str]
    """The rates that these figures rest on."""
    goes: list[str]
    """Results of an earlier run in the same place, which a local run would take away."""

    @property
    def gpu_hours(self) -> float:
        """Of all steps."""
        return sum(line.gpu_hours for line in self.lines)

    @property
    def money(self) -> float:
        """Of all steps, in the currency of the rates."""
        return sum(line.money for line in self.lines)


def plan(settings: RunSettings) -> Plan:
    """What a run of `settings` would do.

    Raises:
        SettingsError: when the pool's size is neither given nor known.
        InputError: when a file of the pool, or of ids, cannot be read.
        StorageError: when there is none.
    """
    from tamis_pipelines.results import Results

    used, samples = _Used(settings.rates), _pool_size(settings)
    rates = cast(RatesSettings, used)
    cells = [(cell, _training_hours(cell, samples, rates)) for cell in settings.cells]
    lines = list(_lines(settings, samples, cells, rates))
    names = [name for name in RatesSettings.model_fields if name in used.names | {"samples", "currency"}]
    goes = Results(settings.results.absolute(), settings.work_dir.absolute() / ".tamis").gone(settings)
    return Plan(samples, lines, cells, settings.rates, names, goes)


class _Used:
    """Rates that remember which of them were asked for."""

    def __init__(self, rates: RatesSettings) -> None:
        self._rates, self.names = rates, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.names.add(name)
        return getattr(self._rates, name)


def _lines(
    settings: RunSettings, samples: int, cells: Sequence[tuple[Cell, float]], rates: RatesSettings
) -> Iterator[Line]:
    all_of_it = f"{samples:,} samples"

    def on_gpus(step: str, count: int, work: str, hours: float) -> Line:
        return Line(step, count, work, hours, hours * rates.gpu_hour)

    yield on_gpus("pool", 1, all_of_it, 0)
    for rater in settings.raters:
        yield _rating(rater, samples, rates, settings.kubeflow.rating_shards.get(rater.name, 1))
    yield on_gpus("embed", 1, all_of_it, samples / rates.embedded_per_second / 3600)
    for step in ("neighbors", "curate"):
        yield on_gpus(step, 1, all_of_it, 0)
    for name in settings.scores:
        if name == "influence":
            yield on_gpus("score for less", 1, all_of_it, _influence_hours(settings, samples, rates))
        else:
            passes = 2 if name == "deita" else 1  # by its two models
            hours = passes * samples / rates.scored_per_second / 3600
            yield on_gpus(f"score for {name}", 1, all_of_it, hours)
    yield on_gpus("select", len(cells), "", 0)
    if settings.finetuning is not None:
        models = [cell.finetuning.model for cell, _ in cells if cell.finetuning]
        bases = list(dict.fromkeys(models))
        training = sum(hours for _, hours in cells)
        yield on_gpus("finetune", len(cells), f"{settings.finetuning.epochs} epochs", training)
        evaluation = sum(rates.evaluation_hours * _relative(model) for model in [*bases, *models])
        work = f"{len(bases)} base models and {len(models)} trained ones" if len(bases) > 1 else "with the base model"
        if settings.evaluation is not None and settings.evaluation.suite != "paper":
            work += f"; by the hours of the suite paper, not of {settings.evaluation.suite}"
        yield on_gpus("evaluate", len(bases) + len(models), work, evaluation)
        if settings.judging is not None:
            yield from _judging(settings.judging, models, rates)
    yield on_gpus("report", 1, "", 0)


def _rating(rater: RatingSettings, samples: int, rates: RatesSettings, pods: int) -> Line:
    """`pods` are those of a run on a cluster; they share the work, and the GPU hours."""
    step, kind = f"rate by {rater.name}", rater.backend.kind
    model = str(getattr(rater.backend, "model", ""))
    if kind == "import":
        return Line(step, 1, "imported", 0, 0)
    asked = _asked(rater, samples)
    left_out = samples / asked - 1  # to each sample that is rated
    sample = f" of {samples:,}" if left_out else ""
    if kind in ("transformers", "vllm"):
        hours = _relative(model) * asked / rates.rated_per_second / 3600
        money = hours * rates.gpu_hour
        saved = f", saves {_hours(hours * left_out)} GPU hours" if left_out else ""
        return Line(step, pods, f"{asked:,}{sample} samples by {model}{saved}", hours, money)
    sent = asked * (rates.prompt_tokens + rates.tokens_per_sample)
    answered = asked * rates.answer_tokens
    money = _price(rater, rates).of(sent, answered)
    saved = f", {asked:,}{sample} samples, saves {money * left_out:,.2f} {rates.currency}" if left_out else ""
    return Line(step, pods, f"{(sent + answered) / 1e6:,.0f} M tokens by {model or kind}{saved}", 0, money)


def _asked(rater: RatingSettings, samples: int) -> int:
    """How many samples are rated, those of `also` counted as if none of them were drawn anyway."""
    also = sum(len(read_ids(file, setting=f"raters.{rater.name}.also")) for file in rater.also)
    return min(rater.asked(samples) + also, samples)


def _judging(judging: CellsJudging, models: Sequence[str], rates: RatesSettings) -> Iterator[Line]:
    """Answers of every cell, and of each opponent once; then two verdicts a prompt."""
    limits = [prompts.limit for prompts in judging.prompts]
    prompts = rates.judged_prompts if None in limits else sum(limit for limit in limits if limit)
    opponents = {str(one): (one, model) for model in models if (one := judging.of(model).against) is not None}
    writers = [*models, *(model for one, model in opponents.values() if one.kind in ("model", "artifact"))]
    seconds = prompts * rates.written_tokens / rates.written_per_second
    hours = seconds / 3600 * sum(map(_relative, writers))
    yield Line("answer prompts", len(writers), f"{prompts:,} prompts", hours, hours * rates.gpu_hour)
    for service in (one for one, _ in opponents.values() if isinstance(one, ServiceContestant)):
        sent, answered = prompts * rates.prompt_tokens, prompts * rates.written_tokens
        tokens = f"{(sent + answered) / 1e6:,.1f} M tokens by {service.model}"
        yield Line("answer prompts", 1, tokens, 0, _price(service, rates).of(sent, answered))
    backend, asked = judging.judge.backend, 2 * prompts * len(models)
    if isinstance(backend, ServiceSettings):
        sent, answered = asked * (rates.prompt_tokens + 2 * rates.written_tokens), asked * rates.answer_tokens
        tokens = f"{(sent + answered) / 1e6:,.1f} M tokens by {backend.model}"
        yield Line("judge", len(models), tokens, 0, _price(judging, rates).of(sent, answered))
    else:
        hours = _relative(backend.model) * asked / rates.rated_per_second / 3600
        yield Line("judge", len(models), f"{asked:,} verdicts by {backend.model}", hours, hours * rates.gpu_hour)


def _price(asking: RatingSettings | CellsJudging | ServiceContestant, rates: RatesSettings) -> PriceSettings:
    """What a service's tokens cost: as its own section says, else at the rates."""
    return asking.price or PriceSettings(input=rates.input_price, output=rates.output_price)


def _influence_hours(settings: RunSettings, samples: int, rates: RatesSettings) -> float:
    """The warm-up's training, and gradients of every sample at every checkpoint."""
    less = settings.influence
    if less is None:
        return 0.0
    warmup = less.warmup.size if less.warmup.size >= 1 else less.warmup.size * samples
    tokens = warmup * less.warmup.epochs * rates.tokens_per_sample
    seconds = tokens / rates.trained_tokens_per_second + samples * less.warmup.epochs / rates.gradients_per_second
    return _relative(less.model) * seconds / 3600


def _training_hours(cell: Cell, samples: int, rates: RatesSettings) -> float:
    training: FinetuningSettings | None = cell.finetuning
    if training is None:
        return 0.0
    size = cell.subset.size
    chosen = samples if size is None else size if size >= 1 else size * samples
    tokens = chosen * training.epochs * rates.tokens_per_sample
    return _relative(training.model) * tokens / rates.trained_tokens_per_second / 3600


def _relative(model: str) -> float:
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


def _pool_size(settings: RunSettings) -> int:
    if settings.rates.samples is not None:
        return settings.rates.samples
    made = manifest_of(settings.work_dir / "pool")
    if made is not None:
        return made.rows
    counts = {source.name: _rows(source, settings.pool) for source in settings.pool.sources}
    if unknown := [name for name, count in counts.items() if count is None]:
        raise SettingsError(
            f"how many samples the sources {', '.join(unknown)} have is not known before the pool is assembled",
            action="say how many the pool will have: --set rates.samples=50000",
        )
    return sum(count for count in counts.values() if count is not None)


def _rows(source: Source, settings: PoolSettings) -> int | None:
    """Samples that a source gives at most, where that is known without a network."""
    whole = None
    if source.recipe is not None:
        recipe = recipe_of(source.recipe)
        # A recipe's own limit, which its number of samples follows, gives way to the user's.
        whole = None if {"limit"} <= recipe.source.keys() & source.model_fields_set else recipe.samples
    if source.path is not None and not is_remote(source.path):
        whole = count_rows(source.path, settings)
    counts = [count for count in (whole, source.limit) if count is not None]
    return min(counts) if counts else None


def as_text(plan: Plan) -> str:
    """The plan as tables: steps, cells, and the rates that it rests on."""
    currency = plan.rates.currency
    steps = [["step", "times", "GPU hours", currency, "on"]]
    steps += [
        [line.step, str(line.count), _hours(line.gpu_hours), f"{line.money:,.2f}", line.work] for line in plan.lines
    ]
    steps.append(["total", "", _hours(plan.gpu_hours), f"{plan.money:,.2f}", ""])
    cells = [["cell", "strategy", "rater", "samples", "seed", "base model", "GPU hours of training"]]
    for cell, hours in plan.cells:
        subset, training = cell.subset, cell.finetuning
        size = "all" if subset.size is None else f"{subset.size:g}" if subset.size < 1 else f"{subset.size:,}"
        of_model = [str(training.seed), training.model, _hours(hours)] if training else [str(subset.seed), "", ""]
        cells.append([cell.name, subset.strategy, subset.rater or "", size, *of_model])
    fields = type(plan.rates).model_fields
    rates = [["rate", "value", "what it is"]]
    values = {name: getattr(plan.rates, name) for name in plan.used} | {"samples": plan.samples}
    rates += [[name, str(value), str(fields[name].description)] for name, value in values.items()]
    lines = [*_columns(steps), "", f"{len(plan.cells)} cells:", "", *_columns(cells), ""]
    if len(plan.cells) > _MANY:
        lines += [
            f"More than {_MANY} cells: on Kubeflow, split the experiment; finished steps are shared all the same.",
            "",
        ]
    lines += ["An estimate from these rates, one GPU each (`rates` in the settings):", "", *_columns(rates)]
    if plan.goes:
        lines += [
            "",
            f"A local run takes away results of an earlier one, unless it has another `name`: {', '.join(plan.goes)}",
        ]
    return "\n".join(lines)


def _hours(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 0.05 or hours == 0 else "< 0.1"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with columns of equal width."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
