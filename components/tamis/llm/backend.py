"""What every engine offers: prompts in, answers out. Nothing here knows of storage, limits or money."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tamis.llm.forms import Form

Problem = Literal["refused", "too_long", "failed"]


class Prompt(Protocol):
    """The wording around the samples of one kind of question."""

    @property
    def before(self) -> str:
        """The text in front of every sample."""

    @property
    def after(self) -> str:
        """The text behind every sample."""

    @property
    def marker(self) -> str | None:
        """What stands where the middle of a long sample is left out; None: such a sample is too long."""

    @property
    def form(self) -> Form | None:
        """The form of an answer; None: free text, of which every end is a good one."""


@dataclass(frozen=True, slots=True)
class Request:
    """One sample that is asked about: its id, its text, and which attempt this is, from 1.

    A backend that samples derives its random numbers from the id and the attempt, never from the request's place.
    """

    id: str
    text: str
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said to one request, before anybody has read it.

    Attributes:
        id: the request's.
        text: the answer; empty when there is a problem.
        problem: why there is no answer, else None; `error` is then "kind" or "kind: detail".
        probabilities: of the values of the form's last number, summing to 1, where the backend knows them.
        shortened: whether the middle of the sample was left out.
        cut: whether the answer ends because it had all the tokens that it may have.
        thought: whether the model thought before it answered, or instead, where that is not in the text.
        leniencies: names of what was forgiven already, to get this text.
        raw: what a service sent and was paid for, where it is not understood.
        prompt_tokens: tokens of the whole prompt; None where the backend does not know.
        completion_tokens: tokens of the answer, reasoning included; None where the backend does not know.
        cached_tokens: of the prompt's, those that a service had in its cache.
        reasoning_tokens: of the answer's, those of reasoning.
        estimated: whether a service did not say in a known way what it counted; tokens are those that it may have been.
    """

    id: str
    text: str = ""
    problem: Problem | None = None
    error: str | None = None
    probabilities: tuple[float, ...] | None = None
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
    """How much a sample asks of a backend: tokens of the whole prompt, and whether it must be shortened, or cannot.

    `completion_tokens` are those that an answer is thought to take, `most_completion_tokens` those that it may take.
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
        """Why it cannot be asked about; None where it can."""
        return "too_long" if self.too_long else "refused" if self.unknown else None


class Backend(Protocol):
    """An engine that answers prompts."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that answers depend on beside prompt, sample and sampling: JSON values, `model` among them."""

    @property
    def deterministic(self) -> bool:
        """Whether another attempt at the same sample can only give the same answer."""

    @property
    def eager(self) -> bool:
        """Whether requests that were read are under way already (and paid for), so that they are worth waiting for."""

    def close(self) -> None:
        """Let go of what it holds; asked again, it starts anew."""

    def measure(self, texts: Sequence[str]) -> list[Size]:
        """The sizes of samples, without asking anything."""

    def answer(self, groups: Iterator[Iterable[Request]]) -> Iterator[Sequence[Answer]]:
        """Ask; give exactly one answer per request that was read, in any order: at once those that came together.

        Args:
            groups: requests, some thousands in a group, which an engine that batches may order as it likes. Read it no
                further ahead than is needed: what is read will be asked, and a group may depend on earlier answers.
        """
