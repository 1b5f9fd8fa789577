"""The interface of engines: prompts in, answers out. Engines know nothing about storage, limits or cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tamis.llm.forms import Form

Problem = Literal["refused", "too_long", "failed"]


class Prompt(Protocol):
    """The text around a sample, and the form of the answer."""

    @property
    def before(self) -> str:
        """The text before every sample."""

    @property
    def after(self) -> str:
        """The text after every sample."""

    @property
    def marker(self) -> str | None:
        """Replaces the middle of a long sample; None: long samples are not shortened, but refused as too long."""

    @property
    def form(self) -> Form | None:
        """The form of an answer; None: free text of any form."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request about one sample: its id, its text, and the number of the attempt, from 1.

    Backends that sample derive their random numbers from the id and the attempt, never from the order of requests.
    """

    id: str
    text: str
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer to one request, not parsed yet.

    Attributes:
        id: id of the request.
        text: the answer; empty if there is a problem.
        problem: the kind of problem if there is no answer, else None; `error` is then "kind" or "kind: detail".
        probabilities: for each key in the form's `told`, the probabilities of its values, with sum 1; None if unknown.
        shortened: whether the middle of the sample was left out.
        cut: whether the answer ended at its limit of tokens.
        thought: whether the model wrote thoughts that are not in the text.
        leniencies: names of the lenient readings that led to this text.
        raw: the response of a service that was paid for but not understood.
        prompt_tokens: tokens of the whole prompt; None if unknown.
        completion_tokens: tokens of the answer, including reasoning; None if unknown.
        cached_tokens: prompt tokens that a service had in its cache.
        reasoning_tokens: answer tokens that are reasoning.
        estimated: whether the token counts are upper estimates, because the service did not report them.
    """

    id: str
    text: str = ""
    problem: Problem | None = None
    error: str | None = None
    probabilities: tuple[tuple[float, ...], ...] | None = None
    shortened: bool = False
    cut: bool = False
    thought: bool = False
    leniencies: tuple[str, ...] = ()
    raw: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a request: tokens of the whole prompt, and whether the sample is shortened or too long.

    `completion_tokens` is the expected length of the answer, `most_completion_tokens` the longest possible one.
    `unknown` says that the sample has a token that the model does not know.
    """

    prompt_tokens: int
    completion_tokens: int = 0
    shortened: bool = False
    too_long: bool = False
    most_completion_tokens: int = 0
    unknown: bool = False

    @property
    def problem(self) -> Problem | None:
        """Why the sample cannot be sent; None if it can."""
        return "too_long" if self.too_long else "refused" if self.unknown else None


class Backend(Protocol):
    """An engine that answers prompts."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything that answers depend on besides prompt, sample and sampling: JSON values, with `model`."""

    @property
    def deterministic(self) -> bool:
        """Whether another attempt at a sample would always give the same answer."""

    @property
    def eager(self) -> bool:
        """Whether requests are sent (and paid for) as soon as they are read, so their answers should be awaited."""

    def close(self) -> None:
        """Release all resources. The backend may be used again."""

    def measure(self, texts: Sequence[str]) -> list[Size]:
        """The sizes of samples. Sends no request."""

    def answer(self, groups: Iterator[Iterable[Request]]) -> Iterator[Sequence[Answer]]:
        """Send requests, and yield exactly one answer for each one read, in any order; answers that arrive together are
        yielded together.

        Args:
            groups: groups of some thousand requests, which an engine may reorder within a group. Read no further ahead
                than necessary: every request read is sent, and a group may depend on earlier answers.
        """
