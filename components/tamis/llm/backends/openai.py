"""The engine for services with OpenAI's chat interface: OpenAI, Azure OpenAI, or a compatible server such as vLLM."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from tamis.core.models import load_tokenizer, revision_of
from tamis.core.references import HubTokenizer
from tamis.llm import thoughts
from tamis.llm.backend import Answer, Backend, Prompt, Request, Size
from tamis.llm.backends.logprobs import ALTERNATIVES, told_probabilities
from tamis.llm.client import Call
from tamis.llm.faults import Fault
from tamis.llm.forms import Form
from tamis.llm.lengths import EstimatedLengths, Lengths, TokenizedLengths
from tamis.llm.readings import no_answer
from tamis.llm.replies import Reply
from tamis.llm.settings import BackendSettings, ServiceSettings
from tamis.llm.stream import stream
from tamis.llm.thoughts import split
from tamis.llm.usage import usage_in

if TYPE_CHECKING:
    from tamis.core.conversations import Format
    from tamis.llm.backends.sampling import Sampling

_TOKENS_OF_A_NUMBER = 8  # tokens of a number in a typical answer, including its key
_SAFETY = 1.25  # factor for uncounted prompts: estimates are too low by a seventh for code and Chinese
_REFUSAL = re.compile(r"\W*(i\W?m (really |very )?sorry|i am sorry|sorry\b|i can(no|\W)t|i(\Wm| am) unable)", re.I)


class OpenAISettings(ServiceSettings, BackendSettings):
    """A service with OpenAI's chat interface: OpenAI, Azure OpenAI, or a compatible server such as vLLM."""

    NOT_OF_ANSWERS: ClassVar[frozenset[str]] = frozenset(
        {
            "kind",
            "azure",
            "api_key_env",
            "limits",
            "concurrency",
            "timeout",
            "tries",
            "patience",
            "answer_limit",
            "seeded",
        }
    )

    kind: Literal["openai"] = Field("openai", description="a service answers")
    structured: Literal["json_schema", "json_object", "none"] = Field(
        "json_schema", description="structured output that the service enforces; none: only the prompt asks for JSON"
    )
    logprobs: bool = Field(True, description="request token probabilities, from which `expected` is computed")
    max_new_tokens: int = Field(128, ge=40, description="longest answer")
    answer_limit: Literal["max_completion_tokens", "max_tokens"] = Field(
        "max_completion_tokens",
        description="the service's parameter for max_new_tokens; older servers know only max_tokens",
    )
    max_sample_tokens: int = Field(
        2048, ge=64, description="tokens of a sample; longer ones are shortened in the middle, and marked"
    )
    tokenizer: HubTokenizer | None = Field(
        None,
        min_length=1,
        description="the model's tokenizer, to count tokens: a name on the Hub, or a folder; null: one per 3.5 bytes",
    )
    seeded: bool = Field(
        True, description="with a temperature above 0, send a seed that depends on the sample and the attempt"
    )
    extra: dict[str, Any] = Field({}, description="further fields of the request; null removes a field")

    @property
    def thinking_tokens(self) -> int:
        """Tokens for reasoning, in addition to `max_new_tokens`."""
        if self.max_thinking_tokens is not None:
            return self.max_thinking_tokens
        return thoughts.TOKENS if thoughts.thinks(self.model, self.extra) else 0

    def open(self, prompt: Prompt, sampling: Sampling, *, style: Format = "chat") -> Backend:
        """See `BackendSettings.open`."""
        return OpenAIBackend(self, prompt, sampling)


BACKEND = OpenAISettings


@dataclass(frozen=True, slots=True)
class Job:
    """A request with the text of its sample as it is sent."""

    request: Request
    text: str
    tokens: int
    shortened: bool


class OpenAIBackend:
    """Sends many concurrent requests; answers are returned as they arrive.

    Raises:
        ModelError: when the tokenizer in the settings cannot be loaded.
    """

    def __init__(self, settings: OpenAISettings, prompt: Prompt, sampling: Sampling) -> None:
        self._settings, self._prompt, self._sampling = settings, prompt, sampling
        self.ahead = 2  # jobs read per concurrent request, so that none has to wait for the next
        self._marker = f"\n\n{prompt.marker}\n\n"
        # Only the limit of thoughts is known in advance.
        self._answer_tokens = answer_tokens(prompt.form, settings.max_new_tokens) + settings.thinking_tokens

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything that answers depend on besides prompt, sample and sampling. The address is not part of it."""
        settings = self._settings
        return {
            "kind": "openai",
            "model": settings.model,
            "structured": settings.structured,
            "logprobs": settings.logprobs,
            "max_new_tokens": settings.max_new_tokens,
            "max_sample_tokens": settings.max_sample_tokens,
            "tokenizer": revision_of(settings.tokenizer) if settings.tokenizer else None,
            "extra": settings.extra,
        } | ({"max_thinking_tokens": settings.thinking_tokens} if settings.thinking_tokens else {})

    @property
    def deterministic(self) -> bool:
        """False, because services answer slightly differently every time, even at temperature 0."""
        return False

    @property
    def eager(self) -> bool:
        """True, because every request that was read is sent at once."""
        return True

    def measure(self, texts: Sequence[str]) -> list[Size]:
        """The sizes of samples: exact except for the chat template if `tokenizer` is set, else estimated."""
        most = self._settings.max_sample_tokens
        return [self._size(tokens, most) for tokens in self._lengths.count(texts)]

    def _size(self, tokens: int, most: int) -> Size:
        if tokens > most and self._prompt.marker is None:
            return Size(self._around + tokens, too_long=True)
        return Size(
            self._around + min(tokens, most),
            self._answer_tokens,
            shortened=tokens > most,
            most_completion_tokens=self._most_tokens,
        )

    def answer(self, groups: Iterator[Iterable[Request]]) -> Iterator[list[Answer]]:
        """Send up to `concurrency` requests at once.

        Raises:
            ServiceError: when the service answers no request.
            MissingExtraError: when the package openai is not installed.
            SettingsError: when the environment lacks the service's key.
        """
        too_long: list[Answer] = []
        for outcomes in stream(self._settings, self._jobs(groups, too_long), self._call, self.ahead):
            yield [self._answer_of(job, outcome) for job, outcome in outcomes] + too_long
            too_long.clear()
        yield too_long

    def close(self) -> None:
        """Does nothing, because no resources are kept between calls of `answer`."""

    def _jobs(self, groups: Iterator[Iterable[Request]], too_long: list[Answer]) -> Iterator[Job]:
        """The jobs to send; requests that are too long are answered without sending them."""
        for group in groups:
            for request in group:
                made = self._job(request)
                if isinstance(made, Answer):
                    too_long.append(made)
                else:
                    yield made

    def _job(self, request: Request) -> Job | Answer:
        (tokens,), most = self._lengths.count([request.text]), self._settings.max_sample_tokens
        if tokens > most and self._prompt.marker is None:
            error = f"longer than max_sample_tokens: {tokens} tokens, allowed {most}"
            return Answer(request.id, problem="too_long", error=error)
        if tokens <= most:
            return Job(request, request.text, self._around + tokens, False)
        front, back = self._lengths.cut(request.text, most - self._marker_tokens)
        return Job(request, front + self._marker + back, self._around + most, True)

    def _call(self, job: Job) -> Call:
        return Call(self.body(job.request, job.text), job.tokens, self._answer_tokens, self._most_tokens)

    def _answer_of(self, job: Job, outcome: Reply | Fault) -> Answer:
        estimated = False
        if isinstance(outcome, Reply) and None in (outcome.prompt_tokens, outcome.completion_tokens):
            # Without reported counts, the cost is estimated rather too high than too low.
            answered = max(self._lengths.count([outcome.text])[0], self._most_tokens)
            prompt = ceil(_SAFETY * job.tokens) if outcome.prompt_tokens is None else outcome.prompt_tokens
            answered = answered if outcome.completion_tokens is None else outcome.completion_tokens
            outcome = replace(outcome, prompt_tokens=prompt, completion_tokens=answered)
            estimated = True
        answer = answer_of(job.request, outcome, shortened=job.shortened, form=self._prompt.form)
        if isinstance(outcome, Reply) and self._prompt.form is None and not (answer.problem or answer.text.strip()):
            # A local model may have nothing to say. An empty answer of a service often has another cause.
            answer = replace(answer, problem="failed", error=no_answer(answer, outcome.finish))
        return replace(answer, estimated=True) if estimated else answer

    def body(self, request: Request, text: str) -> dict[str, Any]:
        """The JSON body of a request, without the model. The shared part of the prompt comes first."""
        settings, sampling, form = self._settings, self._sampling, self._prompt.form
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": self._prompt.before + text + self._prompt.after}],
            "temperature": sampling.temperature,
            settings.answer_limit: most_new_tokens(form, settings.max_new_tokens) + settings.thinking_tokens,
        }
        if not sampling.greedy:
            if sampling.top_p < 1:
                body["top_p"] = sampling.top_p
            if sampling.top_k:
                body["top_k"] = sampling.top_k
            if settings.seeded:
                body["seed"] = int(sampling.draw(request.id, request.attempt, 0) * 2**31)
        if form and settings.structured == "json_schema":
            schema = {"name": "rating", "strict": True, "schema": form.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif form and settings.structured == "json_object":
            body["response_format"] = {"type": "json_object"}
        if form and settings.logprobs:
            body |= {"logprobs": True, "top_logprobs": ALTERNATIVES}
        return {name: value for name, value in (body | settings.extra).items() if value is not None}

    @cached_property
    def _lengths(self) -> Lengths:
        name = self._settings.tokenizer
        return TokenizedLengths(load_tokenizer(name)) if name else EstimatedLengths()

    @cached_property
    def _around(self) -> int:
        return sum(self._lengths.count([self._prompt.before, self._prompt.after]))

    @cached_property
    def _most_tokens(self) -> int:
        """Largest number of answer tokens that the request allows; `extra` may have changed it."""
        body = self.body(Request("0" * 32, ""), "")
        said = [body.get(name) for name in ("max_completion_tokens", "max_tokens")]
        return max([self._answer_tokens, *(most for most in said if isinstance(most, int))])

    @cached_property
    def _marker_tokens(self) -> int:
        return self._lengths.count([self._marker])[0]


def most_new_tokens(form: Form | None, setting: int) -> int:
    """Most tokens of an answer: those of the setting `max_new_tokens`, and those of the form's text."""
    return setting + (form.text_tokens if form else 0)


def answer_tokens(form: Form | None, most: int) -> int:
    """Estimated tokens of an answer: those of its numbers and its text, or for free text the largest number."""
    if form is None:
        return most
    decimals = sum(numbers.decimals + 1 for numbers in form.numbers if numbers.decimals)
    return _TOKENS_OF_A_NUMBER * len(form.keys) + decimals + form.text_tokens


def answer_of(request: Request, outcome: Reply | Fault, *, shortened: bool, form: Form | None) -> Answer:
    """Make an answer from a service's reply or fault."""
    known: dict[str, Any] = {"shortened": shortened, **asdict(usage_in(outcome))}
    if isinstance(outcome, Fault):
        problem: Any = {"too long": "too_long", "content filter": "refused"}.get(outcome.kind, "failed")
        return Answer(request.id, problem=problem, error=str(outcome), **known)
    if outcome.raw is not None:
        error = f"not understood: {outcome.raw[:200]}"
        return Answer(request.id, problem="failed", error=error, raw=outcome.raw, **known)
    if outcome.moderated:
        why = f"refusal: {' '.join(outcome.refusal.split())[:200]}" if outcome.refusal else "content filter"
        return Answer(request.id, problem="refused", error=why, **known)
    text, cut, thought = outcome.text, outcome.finish == "length", bool(outcome.thoughts or outcome.reasoning_tokens)
    said = split(text)[1].strip()
    if form and "{" not in said and _REFUSAL.match(said):
        return Answer(request.id, problem="refused", error=f"refusal: {' '.join(said.split())[:200]}", **known)
    leniencies: tuple[str, ...] = ()
    if form and not said and outcome.thoughts and not cut:
        # Servers that separate thoughts treat an answer without the end of thoughts as thoughts.
        text, leniencies = outcome.thoughts, ("answer among thoughts",)
    return Answer(
        request.id,
        text,
        probabilities=told_probabilities(form, text, outcome.logprobs) if form else None,
        cut=cut,
        thought=thought,
        leniencies=leniencies,
        **known,
    )
