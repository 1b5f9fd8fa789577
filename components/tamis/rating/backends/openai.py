"""Rating by a service with OpenAI's chat interface: OpenAI, Azure OpenAI, or a compatible server such as vLLM."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tamis.core.llm.client import Call, Reply
from tamis.core.llm.faults import Fault
from tamis.core.llm.lengths import EstimatedLengths, Lengths, TokenizedLengths
from tamis.core.llm.stream import stream
from tamis.core.models import load_tokenizer, revision_of
from tamis.rating.backend import Answer, Request, Size
from tamis.rating.backends.logprobs import overall_probabilities
from tamis.rating.parsing import HIGH, KEYS, LOW

if TYPE_CHECKING:
    from tamis.rating.backends.sampling import Sampling
    from tamis.rating.prompts import Prompt
    from tamis.rating.settings import OpenAISettings

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {key: {"type": "integer", "enum": list(range(LOW, HIGH + 1))} for key in KEYS},
    "required": list(KEYS),
    "additionalProperties": False,
}
ALTERNATIVES = 10  # tokens named at each place: as many as there are ratings
ANSWER_TOKENS = 32  # of a usual answer
_REFUSAL = re.compile(r"\W*(i\W?m (really |very )?sorry|i am sorry|sorry\b|i can(no|\W)t|i(\Wm| am) unable)", re.I)


@dataclass(frozen=True, slots=True)
class Job:
    """A request with its sample as it is sent."""

    request: Request
    text: str
    tokens: int
    shortened: bool


class OpenAIBackend:
    """Asks many samples at once; an answer comes back as soon as it is there.

    Raises:
        ModelError: when the tokenizer that is named cannot be loaded.
    """

    def __init__(self, settings: OpenAISettings, prompt: Prompt, sampling: Sampling) -> None:
        self._settings, self._prompt, self._sampling = settings, prompt, sampling
        self._marker = f"\n\n{prompt.marker}\n\n"

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that answers depend on beside the prompt, the sample and the sampling. The address is not among it."""
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
        }

    @property
    def deterministic(self) -> bool:
        """No: services answer a little differently every time, even at temperature 0."""
        return False

    @property
    def eager(self) -> bool:
        """Yes: what was read has been sent, or will be in a moment."""
        return True

    def measure(self, texts: Sequence[str]) -> list[Size]:
        """The sizes of samples: exact but for the chat template where `tokenizer` is given, else estimated."""
        most = self._settings.max_sample_tokens
        return [
            Size(self._around + min(tokens, most), ANSWER_TOKENS, shortened=tokens > most)
            for tokens in self._lengths.count(texts)
        ]

    def answer(self, groups: Iterator[Iterable[Request]]) -> Iterator[list[Answer]]:
        """Rate, `concurrency` samples at once.

        Raises:
            ServiceError: when the service answers nobody.
            MissingExtraError: when the package openai is not installed.
            SettingsError: when the environment lacks the service's key.
        """
        jobs = (self._job(request) for group in groups for request in group)
        for outcomes in stream(self._settings, jobs, self._call):
            yield [answer_of(job.request, outcome, shortened=job.shortened) for job, outcome in outcomes]

    def _job(self, request: Request) -> Job:
        (tokens,), most = self._lengths.count([request.text]), self._settings.max_sample_tokens
        if tokens <= most:
            return Job(request, request.text, self._around + tokens, False)
        front, back = self._lengths.cut(request.text, most - self._marker_tokens)
        return Job(request, front + self._marker + back, self._around + most, True)

    def _call(self, job: Job) -> Call:
        return Call(self.body(job.request, job.text), job.tokens, ANSWER_TOKENS)

    def body(self, request: Request, text: str) -> dict[str, Any]:
        """What is sent for a sample, but for the model's name. The shared part of the prompt stands first."""
        settings, sampling = self._settings, self._sampling
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": self._prompt.before + text + self._prompt.after}],
            "temperature": sampling.temperature,
            settings.answer_limit: settings.max_new_tokens,
        }
        if not sampling.greedy:
            if sampling.top_p < 1:
                body["top_p"] = sampling.top_p
            if sampling.top_k:
                body["top_k"] = sampling.top_k
            if settings.seeded:
                body["seed"] = int(sampling.draw(request.id, request.attempt, 0) * 2**31)
        if settings.structured == "json_schema":
            schema = {"name": "rating", "strict": True, "schema": SCHEMA}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif settings.structured == "json_object":
            body["response_format"] = {"type": "json_object"}
        if settings.logprobs:
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
    def _marker_tokens(self) -> int:
        return self._lengths.count([self._marker])[0]


def answer_of(request: Request, outcome: Reply | Fault, *, shortened: bool) -> Answer:
    """What a service's reply, or the lack of one, says about a sample."""
    if isinstance(outcome, Fault):
        problem: Any = {"too long": "too_long", "content filter": "refused"}.get(outcome.kind, "failed")
        return Answer(request.id, problem=problem, error=str(outcome), shortened=shortened)
    known: dict[str, Any] = {
        "shortened": shortened,
        "prompt_tokens": outcome.prompt_tokens,
        "completion_tokens": outcome.completion_tokens,
    }
    if outcome.refusal is not None or outcome.finish == "content_filter":
        why = f"refusal: {' '.join(outcome.refusal.split())[:200]}" if outcome.refusal else "content filter"
        return Answer(request.id, problem="refused", error=why, **known)
    if "{" not in outcome.text and _REFUSAL.match(outcome.text):
        return Answer(request.id, problem="refused", error=f"refusal: {' '.join(outcome.text.split())[:200]}", **known)
    return Answer(
        request.id,
        outcome.text,
        probabilities=overall_probabilities(outcome.text, outcome.logprobs),
        cut=outcome.finish == "length",
        **known,
    )
