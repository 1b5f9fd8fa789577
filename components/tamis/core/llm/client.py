"""One chat request at a time to a service: sent within the limits, again after technical faults, then given up."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tamis.core.errors import MissingExtraError, ModelError
from tamis.core.llm.faults import Fault, fault_of_status, shortened, storable
from tamis.core.llm.limits import Gate, RateLimits, happens_within
from tamis.core.llm.settings import ServiceSettings
from tamis.core.llm.usage import usage_of

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

_PATH = "/chat/completions"
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0  # seconds between two sendings
_IN_A_ROW = 20  # requests given up one after the other: the service is out of order


@dataclass(frozen=True, slots=True)
class Reply:
    """A service's answer.

    Attributes:
        text: what the model wrote; may be empty.
        finish: why it ended: "stop", "length", "content_filter", …
        refusal: the words of a refusal, where the service marks one.
        logprobs: one entry per token of the answer with `token`, `logprob`, `top_logprobs`; empty if not asked for.
        prompt_tokens: as counted by the service; None where it does not say.
        completion_tokens: likewise; those of reasoning included.
        cached_tokens: tokens of the prompt that the service had in its cache.
        reasoning_tokens: tokens of the answer that are reasoning.
    """

    text: str
    finish: str = "stop"
    refusal: str | None = None
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """One request: the body without its model, and how many tokens it is thought to take."""

    body: Mapping[str, Any]
    input_tokens: float = 0.0
    output_tokens: float = 0.0


class ServiceError(ModelError):
    """A service that answers nobody: a wrong key, a model that is not there, a quota that is used up."""

    code = "service"


class ChatClient:
    """Asks a service. Make and use it inside one event loop, as an asynchronous context manager.

    Raises:
        MissingExtraError: when the package openai is not installed.
        SettingsError: when the key's environment variable is not set.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._client = connect(settings)
        self._gate, self._limits = Gate(settings.concurrency), RateLimits(settings.limits)
        self._given_up = 0  # in a row
        self._closed = asyncio.Event()  # set when the service turned out to be hopeless
        self._reason: Fault | None = None

    async def __aenter__(self) -> ChatClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def ask(self, call: Call) -> Reply | Fault:
        """The answer, or the last fault when the request was given up.

        Raises:
            ServiceError: when no request will be answered. Requests under way still end well; none is sent any more.
        """
        first, sent = 0.0, 0  # when it was first sent, from when on patience counts; how often it was sent
        while True:
            async with self._gate:
                # Waiting for its turn within the limits takes a place too: what is behind it would wait as long.
                await self._limits.acquire(call.input_tokens, call.output_tokens, self._closed)
                self._raise_if_closed()
                first = first if sent else time.monotonic()
                sent += 1
                outcome = await self._send(call.body)
                self._settle(call, outcome)
            if isinstance(outcome, Reply):
                self._given_up = 0
                return outcome
            if outcome.hopeless:
                self._close(outcome)
            if not outcome.again:
                return outcome
            wait = _wait_before(sent, outcome.retry_after)
            late = time.monotonic() + wait - first > self._settings.patience
            # Being told to come later is no fault of the request; only its patience counts then.
            if late or (sent >= self._settings.tries and outcome.kind != "rate limited"):
                return self._give_up(outcome, sent)
            await self._sleep(wait)

    async def _send(self, body: Mapping[str, Any]) -> Reply | Fault:
        import httpx2  # what the package openai sends with
        import openai

        settings = self._settings
        whole = {"model": settings.asked_model, **body}
        try:
            # The package's own limit is per read, which a server that sends a byte now and then never meets.
            async with asyncio.timeout(settings.timeout):
                response = await self._client.post(_PATH, body=whole, cast_to=httpx2.Response)
        except TimeoutError:
            return Fault("timeout", f"no whole answer within {settings.timeout:g} s")
        except openai.APITimeoutError:
            return Fault("timeout", "the connection took too long")
        except openai.APIStatusError as error:
            return fault_of_status(
                error.status_code, error.response.headers, error.body, frozenset(body), settings.patience
            )
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            cause = error.__cause__ or error
            return Fault("no connection", shortened(f"{type(cause).__name__}: {cause}"))
        return reply_of(response.content)

    def _settle(self, call: Call, outcome: Reply | Fault) -> None:
        """Tell gate and limits how it went."""
        if isinstance(outcome, Reply):
            self._gate.went_well()
            if outcome.prompt_tokens is not None and outcome.completion_tokens is not None:
                self._limits.correct(
                    outcome.prompt_tokens - call.input_tokens, outcome.completion_tokens - call.output_tokens
                )
            return
        if outcome.overload:
            self._gate.overloaded()
        if outcome.retry_after is not None and outcome.again:
            self._limits.close_for(outcome.retry_after)

    def _give_up(self, fault: Fault, sent: int) -> Fault:
        self._given_up += 1
        if self._given_up >= _IN_A_ROW:
            self._close(fault)
        return Fault(fault.kind, f"{fault.detail} (sent {sent} times)")

    def _close(self, fault: Fault) -> None:
        self._reason = self._reason or fault
        self._closed.set()
        self._raise_if_closed()

    def _raise_if_closed(self) -> None:
        if self._reason is not None:
            raise service_error(self._settings, self._reason)

    async def _sleep(self, seconds: float) -> None:
        """Wait, but no longer than the service is thought to answer at all."""
        if await happens_within(self._closed, seconds):
            self._raise_if_closed()


def connect(settings: ServiceSettings) -> AsyncOpenAI:
    """The package's client for a service; it never sends twice by itself.

    Raises:
        MissingExtraError: when the package openai is not installed.
        SettingsError: when the key's environment variable is not set.
    """
    openai, options = _package(), _options(settings)
    if settings.azure is not None:
        return openai.AsyncAzureOpenAI(**options, max_retries=0)  # type: ignore[no-any-return]
    return openai.AsyncOpenAI(**options, max_retries=0)  # type: ignore[no-any-return]


def connect_for_files(settings: ServiceSettings) -> OpenAI:
    """The package's blocking client, for few and large requests; it never sends twice by itself.

    Raises:
        MissingExtraError: when the package openai is not installed.
        SettingsError: when the key's environment variable is not set.
    """
    openai, options = _package(), _options(settings)
    if settings.azure is not None:
        return openai.AzureOpenAI(**options, max_retries=0)  # type: ignore[no-any-return]
    return openai.OpenAI(**options, max_retries=0)  # type: ignore[no-any-return]


def _package() -> Any:
    try:
        import openai
    except ImportError:
        raise MissingExtraError.of("openai", "openai") from None
    return openai


def _options(settings: ServiceSettings) -> dict[str, Any]:
    options = {"api_key": settings.api_key(), "timeout": settings.timeout}
    if settings.azure is not None:
        return options | {"azure_endpoint": settings.base_url, "api_version": settings.azure.api_version}
    # Named even if it is the default: an OPENAI_BASE_URL in the environment must not redirect samples and key.
    return options | {"base_url": settings.base_url or "https://api.openai.com/v1"}


def reply_of(content: bytes) -> Reply | Fault:
    """Read the body of a successful response."""
    if not content.strip():
        return Fault("bad response", "an empty body")
    try:
        body = json.loads(content)
    except ValueError:
        return Fault("bad response", f"not JSON: {shortened(content[:80].decode(errors='replace'))}")
    return reply_in(body)


def reply_in(body: Any) -> Reply | Fault:
    """Read a chat completion, as parsed JSON."""
    try:
        choice = body["choices"][0]
        message, usage = choice["message"], usage_of(body.get("usage"))
        text, refusal = message.get("content") or "", message.get("refusal")
        logprobs = (choice.get("logprobs") or {}).get("content") or []
        if not isinstance(text, str) or not isinstance(logprobs, list):
            raise TypeError
        return Reply(
            storable(text),
            str(choice.get("finish_reason") or "stop"),
            storable(str(refusal)) if refusal else None,
            logprobs,
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.cached_tokens,
            usage.reasoning_tokens,
        )
    except (LookupError, TypeError, AttributeError):
        return Fault("bad response", "JSON, but no chat completion")


def service_error(settings: ServiceSettings, fault: Fault) -> ServiceError:
    """What a user is told when a service answers nobody."""
    actions = {
        "unauthorised": f"check the key in {settings.api_key_env}, and that it belongs to this service",
        "forbidden": "check what the key may do, and the account",
        "not found": "check 'base_url' and 'model' (on Azure: 'deployment' and 'api_version')",
        "quota used up": "add credit to the account, then start again",
        "wants to wait": "start again later, or raise 'patience'",
        "parameter refused": "change the setting behind that parameter: 'structured', 'logprobs', 'answer_limit', "
        "'temperature', 'top_k', 'seeded' or 'extra'",
    }
    return ServiceError(
        f"{settings.base_url or 'OpenAI'} does not answer for the model '{settings.model}': {fault}",
        action=actions.get(fault.kind, f"{_IN_A_ROW} requests in a row were given up; see whether the service works")
        + "; finished answers are kept",
    )


def _wait_before(sent: int, retry_after: float | None) -> float:
    """Seconds before the next sending: exponential with full jitter, so that clients that failed together part."""
    wait = random.uniform(0.1, 1.0) * min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(sent - 1, 10))
    return wait if retry_after is None else retry_after + min(wait, 1.0)
