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
from tamis.llm.settings import BackendSettings, BudgetShare, PriceSettings, ServiceSettings

# What a judge's backend has unless its settings say otherwise: two answers are longer than one sample of a pool, and
# nobody reads the probabilities of its numbers.
_OF_A_JUDGE = {"max_sample_tokens": 8192, "logprobs": False}


def _prompt_read(settings: JudgeSettings) -> str:
    return f"{settings.prompt}, version {load_prompt(settings.prompt).version}"


_NAME = Field(
    None,
    pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
    max_length=64,
    description="what tables call it; if not given, the last part of the model's name or path",
)


class PromptSet(Settings):
    """Questions that both models answer: out of one JSONL file, or a data set of the hub."""

    name: str = Field(min_length=1, description="what tables call the set")
    path: DataPath | None = Field(
        None, min_length=1, description="JSON file, local or in object storage: one object a line, or an array"
    )
    dataset: HubDataset | None = Field(
        None, min_length=1, description="instead of path: a hub name, or a folder that the library datasets loads"
    )
    config: str | None = Field(None, description="with dataset: its configuration")
    split: str = Field("test", min_length=1, description="with dataset: its split")
    revision: str | None = Field(None, description="with dataset: a commit or tag")
    fields: list[str] = Field(
        ["prompt"],
        min_length=1,
        description="where the text is, as in turns.0; several are joined by blank lines, and all but the first may be "
        "empty: [instruction, instances.0.input]",
    )
    limit: int | None = Field(None, ge=1, description="at most so many, drawn by the seed; null: all")
    seed: int = Field(42, ge=0, description="of the draw")

    @model_validator(mode="after")
    def _one_place(self) -> PromptSet:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("give 'path' or 'dataset', and not both")
        for name in ("config", "split", "revision"):
            if self.dataset is None and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"'{name}' has a meaning only with dataset; leave it out")
        return self


class ModelContestant(Settings):
    """A model that answers in this process, by the engine of the section `answers`."""

    kind: Literal["model"] = Field("model", description="a local model writes the answers")
    name: str | None = _NAME
    model: HubModel = Field(min_length=1, description="a hub name, or a folder in Hugging Face layout")
    revision: str | None = Field(None, description="commit or tag of the hub model")
    format: Format = Field(
        "chat",
        description="chat: the template that lies with the model, which for a model that Tamis trained is that of its "
        "training; tulu: <|user|> and <|assistant|> headers",
    )


class ArtifactContestant(Settings):
    """A model that Tamis trained, local or in object storage; it answers in this process, in the format it knows."""

    kind: Literal["artifact"] = Field("artifact", description="a model artifact writes the answers")
    path: DataPath = Field(
        min_length=1,
        description="the artifact that `finetune` made: a folder, or a place in object storage as in s3://…",
    )


class ServiceContestant(ServiceSettings):
    """A model that answers behind OpenAI's chat interface."""

    kind: Literal["service"] = Field("service", description="a service writes the answers")
    name: str | None = _NAME
    answer_limit: Literal["max_completion_tokens", "max_tokens"] = Field(
        "max_completion_tokens", description="what the service calls the longest answer"
    )
    seeded: bool = Field(True, description="send a seed of the prompt, with a temperature above 0")
    extra: dict[str, Any] = Field(
        {}, description="further fields of the request, as the service names them; null takes one out"
    )
    price: PriceSettings | None = Field(None, description="what the tokens cost; counts towards max_cost")


class AnswersContestant(Settings):
    """Answers that exist already, such as those that a paper's authors published."""

    kind: Literal["answers"] = Field("answers", description="the answers exist already")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64, description="what tables call it")
    path: DataPath = Field(
        min_length=1, description="JSON file, local or in object storage: one object a line, or an array"
    )
    fields: list[str] = Field(["prompt"], min_length=1, description="where the prompt's text is, as in a prompt set")
    answer: str = Field("answer", min_length=1, description="where the answer is, as in choices.0.turns.0")
    written_by: str | None = Field(
        None, description="name of the model that wrote them, for the warning about judges of its family"
    )


Contestant = Annotated[
    ModelContestant | ArtifactContestant | ServiceContestant | AnswersContestant, Field(discriminator="kind")
]


class AnswerSettings(Settings):
    """How the contestants write, other than those that are services in what concerns the engine."""

    engine: Literal["transformers", "vllm"] = Field("transformers", description="what runs a model in this process")
    temperature: float = Field(0.0, ge=0, le=5, description="0 takes the most probable token")
    top_p: float = Field(1.0, gt=0, le=1, description="sample from the most probable that hold this share; 1: from all")
    top_k: int = Field(0, ge=0, description="sample from so many most probable; 0: from all")
    seed: int = Field(0, ge=0, description="draws depend on this and the prompt, not on batches")
    max_new_tokens: int = Field(1024, ge=40, description="longest answer; one that is cut off is judged as it is")
    max_prompt_tokens: int = Field(2048, ge=64, description="a longer prompt is not asked, and counted")
    precision: Precision = Field("auto", description="auto: bfloat16 on a GPU, float32 on a CPU")
    batch_tokens: int | None = Field(
        None, ge=64, description="transformers: tokens in one forward pass, those of answers included; null: by device"
    )
    tensor_parallel: int = Field(1, ge=1, description="vllm: GPUs that hold one copy of the model together")
    data_parallel: int = Field(1, ge=1, description="vllm: copies of the model, each on GPUs of its own")
    engine_arguments: dict[str, Any] = Field({}, description="vllm: further arguments of its engine, as it names them")

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> AnswerSettings:
        own = {"transformers": ("batch_tokens",), "vllm": ("tensor_parallel", "data_parallel", "engine_arguments")}
        for engine, names in own.items():
            for name in names:
                if engine != self.engine and getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"'{name}' has an effect with engine: {engine} only; leave it out")
        return self


if TYPE_CHECKING:
    JudgeBackend: TypeAlias = BackendSettings
else:
    JudgeBackend = one_of(*BACKENDS.values())


class JudgeSettings(Settings):
    """Who judges, and how it is asked."""

    backend: JudgeBackend = Field(
        description=f"what answers, as for a rater: kind: {', '.join(BACKENDS)}; by default max_sample_tokens is 8192 "
        "here, and logprobs false"
    )
    prompt: Annotated[str, Reference("shipped", _prompt_read)] = Field(
        "scores-v1", min_length=1, description="scores-v1, verdict-v1, or the path of a YAML file of a judge's prompt"
    )
    temperature: float = Field(0.0, ge=0, le=5, description="0 takes the most probable number")
    top_p: float = Field(1.0, gt=0, le=1, description="sample from the most probable that hold this share; 1: from all")
    top_k: int = Field(0, ge=0, description="sample from so many most probable; 0: from all")
    seed: int = Field(0, ge=0, description="draws depend on this and what is judged, not on batches")
    max_attempts: int = Field(3, ge=1, le=20, description="how often a pair is asked before it counts as unparsable")
    max_answer_characters: int = Field(
        8000, ge=200, description="of a longer answer the judge sees the beginning and the end, and a mark between them"
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
    """Which two models are compared, on which prompts, and who judges."""

    OUTPUT_REVISION: ClassVar[int] = 1

    prompts: list[PromptSet] = Field(min_length=1, description="one or more sets; a prompt of two sets is asked once")
    model: Contestant | None = Field(None, description="who is judged, where no model artifact is given")
    against: Contestant | None = Field(None, description="the opponent, where no model artifact is given as such")
    answers: AnswerSettings = Field(AnswerSettings(), description="how models write their answers")
    judge: JudgeSettings = Field(description="who judges, and how it is asked")
    max_failure_share: float = Field(
        0.05, ge=0, le=1, description="fail when more than this share of the prompts cannot be judged"
    )
    price: PriceSettings | None = Field(None, description="what the judge's tokens cost; for projections and max_cost")
    max_cost: MoneyLimit = Field(
        None, gt=0, description="stop before answers and verdicts, those of earlier runs included, cost more than this"
    )
    budget_share: BudgetShare = None
    store: StoreUri | None = Field(
        None,
        min_length=1,
        description="place, local or in object storage, that keeps every answer and verdict, for this and later runs; "
        "if not given, a folder in the user's data that all runs share; on a cluster, name one",
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="of the intervals")
    seed: int = Field(42, ge=0, description="of the bootstrap that the intervals come from")

    @model_validator(mode="after")
    def _fits_together(self) -> JudgingSettings:
        names = [prompts.name for prompts in self.prompts]
        if len(set(names)) < len(names):
            raise ValueError("two prompt sets have one name; give each a name of its own")
        priced = [self.price, *(getattr(one, "price", None) for one in (self.model, self.against))]
        if self.max_cost is not None and not any(priced):
            raise ValueError("'max_cost' needs 'price', what the judge's tokens cost")
        return self
