"""Settings of the judging stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from tamis.core.conversations import Format
from tamis.core.models import Precision
from tamis.core.references import DataPath, HubDataset, HubModel, Reference, StoreUri
from tamis.core.registry import one_of
from tamis.core.settings import MoneyLimit, Settings, StageSettings
from tamis.judging.prompts import load_prompt
from tamis.llm.backends import BACKENDS
from tamis.llm.settings import BackendSettings, BudgetShare, PriceSettings, ServiceSettings, TopK, TopP

# Defaults of a judge's backend: two answers are longer than one sample of a pool, and probabilities are not used.
_OF_A_JUDGE = {"max_sample_tokens": 8192, "logprobs": False}


def _prompt_read(settings: JudgeSettings) -> str:
    return f"{settings.prompt}, version {load_prompt(settings.prompt).version}"


_NAME = Field(
    None,
    pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
    max_length=64,
    description="name in tables; default: the last part of the model's name or path",
)


class PromptSet(Settings):
    """Questions that both models answer, from a JSON file or a data set on the Hugging Face Hub."""

    name: str = Field(min_length=1, description="name of the set in tables")
    path: DataPath | None = Field(
        None, min_length=1, description="JSON file, local or in object storage: one object per line, or an array"
    )
    dataset: HubDataset | None = Field(
        None,
        min_length=1,
        description="instead of path: a name on the Hugging Face Hub, or a folder that the library datasets loads",
    )
    config: str | None = Field(None, description="with dataset: its configuration")
    split: str = Field("test", min_length=1, description="with dataset: its split")
    revision: str | None = Field(None, description="with dataset: a commit or tag")
    fields: list[str] = Field(
        ["prompt"],
        min_length=1,
        description="fields with the text, such as turns.0; several are joined by blank lines, and all but the first "
        "may be empty: [instruction, instances.0.input]",
    )
    limit: int | None = Field(None, ge=1, description="most prompts, drawn with the seed; null: all")
    seed: int = Field(42, ge=0, description="seed of the draw")

    @model_validator(mode="after")
    def _one_place(self) -> PromptSet:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("set either 'path' or 'dataset'")
        for name in ("config", "split", "revision"):
            if self.dataset is None and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"'{name}' has an effect only with dataset; leave it out")
        return self


class ModelContestant(Settings):
    """A model that answers in this process, with the engine in the section `answers`."""

    kind: Literal["model"] = Field("model", description="a local model writes the answers")
    name: str | None = _NAME
    model: HubModel = Field(min_length=1, description="a name on the Hugging Face Hub, or a folder in its layout")
    revision: str | None = Field(None, description="commit or tag of a model on the Hub")
    format: Format = Field(
        "chat",
        description="chat: the chat template stored with the model, which for a model trained by Tamis is the one "
        "used in training; tulu: <|user|> and <|assistant|> headers",
    )


class ArtifactContestant(Settings):
    """A model that Tamis trained, local or in object storage; it answers in this process, in its training format."""

    kind: Literal["artifact"] = Field("artifact", description="a model artifact writes the answers")
    path: DataPath = Field(
        min_length=1,
        description="the artifact made by `finetune`: a folder, or a prefix in object storage such as s3://…",
    )


class ServiceContestant(ServiceSettings):
    """A model that answers behind OpenAI's chat interface."""

    kind: Literal["service"] = Field("service", description="a service writes the answers")
    name: str | None = _NAME
    answer_limit: Literal["max_completion_tokens", "max_tokens"] = Field(
        "max_completion_tokens", description="the service's parameter for the longest answer"
    )
    seeded: bool = Field(True, description="with a temperature above 0, send a seed that depends on the prompt")
    extra: dict[str, Any] = Field({}, description="further fields of the request; null removes a field")
    price: PriceSettings | None = Field(None, description="what tokens cost; counts towards max_cost")


class AnswersContestant(Settings):
    """Existing answers, such as those that a paper's authors published."""

    kind: Literal["answers"] = Field("answers", description="the answers exist already")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64, description="name in tables")
    path: DataPath = Field(
        min_length=1, description="JSON file, local or in object storage: one object per line, or an array"
    )
    fields: list[str] = Field(
        ["prompt"], min_length=1, description="fields with the text of the prompt, as in a prompt set"
    )
    answer: str = Field("answer", min_length=1, description="field with the answer, such as choices.0.turns.0")
    written_by: str | None = Field(
        None, description="name of the model that wrote them; a judge of its family causes a warning"
    )


Contestant = Annotated[
    ModelContestant | ArtifactContestant | ServiceContestant | AnswersContestant, Field(discriminator="kind")
]


class AnswerSettings(Settings):
    """How contestants write their answers. The settings of the engine do not apply to services."""

    engine: Literal["transformers", "vllm"] = Field("transformers", description="engine for models in this process")
    temperature: float = Field(0.0, ge=0, le=5, description="0: take the most probable token")
    top_p: TopP = 1.0
    top_k: TopK = 0
    seed: int = Field(0, ge=0, description="seed of the draws; they also depend on the prompt, but not on batches")
    max_new_tokens: int = Field(1024, ge=40, description="longest answer; an answer that is cut off is judged as it is")
    max_prompt_tokens: int = Field(2048, ge=64, description="longer prompts are not asked, and are counted")
    precision: Precision = Field("auto", description="auto: bfloat16 on a GPU, float32 on a CPU")
    batch_tokens: int | None = Field(
        None,
        ge=64,
        description="transformers: tokens in one forward pass, answers included; null: depends on the device",
    )
    tensor_parallel: int = Field(1, ge=1, description="vllm: GPUs that share one copy of the model")
    data_parallel: int = Field(1, ge=1, description="vllm: copies of the model, each on its own GPUs")
    engine_arguments: dict[str, Any] = Field({}, description="vllm: further arguments of its engine")

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> AnswerSettings:
        own = {"transformers": ("batch_tokens",), "vllm": ("tensor_parallel", "data_parallel", "engine_arguments")}
        for engine, names in own.items():
            for name in names:
                if engine != self.engine and getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"'{name}' has an effect only with engine: {engine}; leave it out")
        return self


if TYPE_CHECKING:
    JudgeBackend: TypeAlias = BackendSettings
else:
    JudgeBackend = one_of(*BACKENDS.values())


class JudgeSettings(Settings):
    """The judge: its backend, its prompt and its limits."""

    backend: JudgeBackend = Field(
        description=f"the engine, as for a rater; kind: {', '.join(BACKENDS)}; here max_sample_tokens is 8192 by "
        "default, and logprobs is false"
    )
    prompt: Annotated[str, Reference("shipped", _prompt_read)] = Field(
        "scores-v1", min_length=1, description="scores-v1, verdict-v1, or the path of a YAML file with a judge's prompt"
    )
    temperature: float = Field(0.0, ge=0, le=5, description="0: take the most probable token")
    top_p: TopP = 1.0
    top_k: TopK = 0
    seed: int = Field(0, ge=0, description="seed of the draws; they also depend on the answers, but not on batches")
    max_attempts: int = Field(
        3, ge=1, le=20, description="how often a pair is asked about before it counts as unparsable"
    )
    max_answer_characters: int = Field(
        8000, ge=200, description="of a longer answer the judge sees only the beginning and the end"
    )

    @field_validator("backend", mode="before")
    @classmethod
    def _room_for_two_answers(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        backend = BACKENDS.get(value.get("kind", ""))
        known = backend.model_fields if backend else {}
        return {name: given for name, given in _OF_A_JUDGE.items() if name in known} | value


class JudgingSettings(StageSettings):
    """The two models to compare, the prompts, and the judge."""

    OUTPUT_REVISION: ClassVar[int] = 2

    prompts: list[PromptSet] = Field(min_length=1, description="one or more sets; a prompt in two sets is asked once")
    model: Contestant | None = Field(None, description="the model to judge, if no model artifact is given")
    against: Contestant | None = Field(None, description="the opponent, if no model artifact is given for it")
    answers: AnswerSettings = Field(AnswerSettings(), description="how models write their answers")
    judge: JudgeSettings = Field(description="the judge")
    max_failure_share: float = Field(
        0.05, ge=0, le=1, description="fail when more than this share of the prompts cannot be judged"
    )
    price: PriceSettings | None = Field(None, description="what the judge's tokens cost; for estimates and max_cost")
    max_cost: MoneyLimit = Field(
        None, gt=0, description="stop before answers and verdicts, including those of earlier runs, cost more than this"
    )
    budget_share: BudgetShare = None
    store: StoreUri | None = Field(
        None,
        min_length=1,
        description="folder, or prefix in object storage, that keeps every answer and verdict for this and later runs; "
        "default: a folder that all runs of the user share; set it on a cluster",
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="confidence level of the intervals")
    seed: int = Field(42, ge=0, description="seed of the bootstrap for the intervals")

    @model_validator(mode="after")
    def _fits_together(self) -> JudgingSettings:
        names = [prompts.name for prompts in self.prompts]
        if len(set(names)) < len(names):
            raise ValueError("two prompt sets have the same name; rename one")
        priced = [self.price, *(getattr(one, "price", None) for one in (self.model, self.against))]
        if self.max_cost is not None and not any(priced):
            raise ValueError("'max_cost' needs 'price', the price of the judge's tokens")
        return self
