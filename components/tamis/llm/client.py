"""Sends chat requests to a service: within rate limits, with retries after temporary faults."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import ceil
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tamis.core.errors import MissingExtraError, ModelError
from tamis.core.network import check_network, uses_socks
from tamis.llm.faults import Fault, fault_of_status, shortened
from tamis.llm.health import Course, Health
from tamis.llm.limits import Amounts, Gate, RateLimits, happens_within
from tamis.llm.replies import Reply, reply_of
from tamis.llm.settings import ServiceSettings
from tamis.llm.usage import Usage, usage_in
from tamis.llm.wordings import fix_of

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

_PATH = "/chat/completions"
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0  # seconds between two tries
_DENIED_TRIES = 3  # tries of a request that is denied while others are answered


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    Attributes:
        body: JSON body without the model.
        input_tokens: estimated prompt tokens.
        output_tokens: estimated answer tokens.
        most_output_tokens: largest possible number of answer tokens.
    """

    body: Mapping[str, Any]
    input_tokens: float = 0.0
    output_tokens: float = 0.0
    most_output_tokens: float = 0.0


class ServiceError(ModelError):
    """A service answers no request at all: for example, a wrong key, an unknown model, or no quota left."""

    code = "service"
    permanent = False


class ChatClient:
    """A client of one service. Make and use it inside one event loop, as an asynchronous context manager.

    Raises:
        MissingExtraError: when the package openai is not installed.
        SettingsError: when the key's environment variable is not set.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._client = connect(settings)
        self._gate, self._limits = Gate(settings.concurrency), RateLimits(settings.limits)
        self._health = Health(_address(settings), settings.patience)
        self._news = asyncio.Event()  # cleared while the service seems to be down
        self._news.set()
        self._closed = asyncio.Event()  # set when no request will be answered any more
        self._probe: Call | None = None  # the shortest request that was answered
        self._of_probes: Usage | None = None  # tokens of probes that no outcome has reported yet

    async def __aenter__(self) -> ChatClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    @property
    def at_once(self) -> int:
        """Most concurrent requests in the near future."""
        return self._gate.within_reach

    @property
    def expects_more(self) -> bool:
        """Whether more requests will come; the caller sets it, from any thread."""
        return self._health.expects_more

    @expects_more.setter
    def expects_more(self, value: bool) -> None:
        self._health.expects_more = value

    async def ask(self, call: Call) -> Reply | Fault:
        """The answer, or the last fault if the request was given up.

        Raises:
            ServiceError: when no request will be answered. Open requests may still be answered; no more are sent.
        """
        course, fault = self._health.begin(), None
        try:
            while True:
                async with self._gate:
                    await self._wait_while_away()
                    if fault is not None and self._health.resigned:
                        return self._telling(_given_up(fault, course))
                    self._raise_if_closed()
                    if self._probe is not None and self._health.needs_probe:
                        alone_at_fault = await self._send_probe(self._probe)
                        self._raise_if_closed()
                        if fault is not None and alone_at_fault and self._tried(fault, course):
                            return self._telling(_given_up(fault, course))
                        continue
                    # A request keeps its place while it waits for rate limits: those behind it would wait as long.
                    taken = await self._acquire(call)
                    self._health.sending(course)
                    outcome = await self._send(call.body)
                    self._settle(call, taken, outcome, course)
                if isinstance(outcome, Reply):
                    if self._probe is None or call.input_tokens < self._probe.input_tokens:
                        self._probe = call
                    return self._telling(outcome)
                fault, wait = outcome, self._wait_after(outcome, course)
                self._raise_if_closed()
                if wait is None:
                    return self._telling(_given_up(fault, course))
                await self._sleep(wait)
        finally:
            self._health.end(course)

    async def _wait_while_away(self) -> None:
        """While the service is down, wait until the next request may be sent, or another one is answered."""
        while not self._closed.is_set() and not self._news.is_set() and (wait := self._health.wait()):
            await happens_within(self._news, wait)

    async def _acquire(self, call: Call) -> Amounts:
        taken = await self._limits.acquire(call.input_tokens, call.output_tokens, call.most_output_tokens, self._closed)
        self._raise_if_closed()
        return taken

    async def _send_probe(self, call: Call) -> bool:
        """Send a request that was answered before. Returns whether the service works, so faults belong to requests."""
        taken = await self._acquire(call)
        course = self._health.begin()
        self._health.sending(course)
        outcome = await self._send(call.body)
        if isinstance(outcome, Reply):
            taken_by = usage_in(outcome)
            if taken_by.prompt_tokens is None:
                taken_by = replace(taken_by, prompt_tokens=ceil(call.input_tokens))
            if taken_by.completion_tokens is None:
                taken_by = replace(taken_by, completion_tokens=ceil(call.most_output_tokens))
            self._of_probes = taken_by if self._of_probes is None else self._of_probes + taken_by
        return self._settle(call, taken, outcome, course, probe=True)

    def _telling(self, outcome: Reply | Fault) -> Reply | Fault:
        """The outcome of a request, plus the tokens of probes, which are paid for too."""
        if self._of_probes is None or (
            isinstance(outcome, Reply) and None in (outcome.prompt_tokens, outcome.completion_tokens)
        ):  # token counts of such a reply are estimated later
            return outcome
        of_probes, self._of_probes = self._of_probes, None
        return replace(outcome, **asdict(usage_in(outcome) + of_probes))

    async def _send(self, body: Mapping[str, Any]) -> Reply | Fault:
        import httpx2  # the HTTP library of the package openai
        import openai

        settings = self._settings
        whole = {"model": settings.asked_model, **body}
        try:
            # The timeout of the package is per read; a server that sends single bytes would never exceed it.
            async with asyncio.timeout(settings.timeout):
                response = await self._client.post(_PATH, body=whole, cast_to=httpx2.Response)
        except TimeoutError:
            return Fault("timeout", f"no whole answer within {settings.timeout:g} s")
        except openai.APIStatusError as error:
            return fault_of_status(
                error.status_code, error.response.headers, error.body, frozenset(body), settings.patience
            )
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            return _connection_fault(error)
        return reply_of(response.content, frozenset(body), settings.patience)

    def _settle(
        self, call: Call, taken: Amounts, outcome: Reply | Fault, course: Course, *, probe: bool = False
    ) -> bool:
        """Report the outcome to health, gate and limits; for a probe, return whether others fail by themselves."""
        told = False
        if probe:
            told = self._health.probed(course, outcome if isinstance(outcome, Fault) else None)
        elif isinstance(outcome, Reply):
            self._health.answered(course)
        else:
            self._health.failed(course, outcome)
        if isinstance(outcome, Reply):
            self._gate.went_well()
            self._limits.settle(taken, call.input_tokens, outcome.prompt_tokens, outcome.completion_tokens)
        else:
            if outcome.overload and not self._health.alone:
                self._gate.overloaded()
            if outcome.retry_after is not None and outcome.again:
                self._limits.close_for(outcome.retry_after)
        self._heed_health()
        self._close_if_hopeless()
        return told

    def _heed_health(self) -> None:
        self._gate.alone = self._health.alone
        if self._health.alone and self._health.hopeless is None and not self._health.resigned:
            self._news.clear()
        else:
            self._news.set()

    def _wait_after(self, fault: Fault, course: Course) -> float | None:
        """Seconds until the request may be sent again; None to give it up."""
        health = self._health
        if fault.passing and health.alone:
            return 0.0  # the queue decides when
        wait = _wait_before(course.tries, fault.retry_after)
        late = time.monotonic() + wait > health.patient_until(course)
        tried = self._tried(fault, course) and not health.undecided(course, fault)
        if fault.passing and not late and not tried:
            return wait
        if health.doubts(course, fault):  # even if patience is over, because an outage may be ending
            self._heed_health()
            return 0.0
        if not fault.about_text:
            health.gave_up(course, fault)
            self._close_if_hopeless()
        return None

    def _tried(self, fault: Fault, course: Course) -> bool:
        """Whether a request has used all its tries."""
        tries = self._settings.tries if fault.again else min(self._settings.tries, _DENIED_TRIES)
        # A rate limit is not a fault of the request, so only its patience counts.
        return course.tries >= tries and fault.kind != "rate limited"

    def _close_if_hopeless(self) -> None:
        if self._health.hopeless is not None:
            self._closed.set()
            self._news.set()

    def _raise_if_closed(self) -> None:
        if self._health.hopeless is not None:
            raise service_error(self._settings, self._health.hopeless)

    async def _sleep(self, seconds: float) -> None:
        """Wait, but stop as soon as no request will be answered any more."""
        if await happens_within(self._closed, seconds):
            self._raise_if_closed()


def connect(settings: ServiceSettings) -> AsyncOpenAI:
    """The asynchronous client of the package openai, without its own retries.

    Raises:
        MissingExtraError: when the package openai is not installed.
        SettingsError: when the key's environment variable is not set, or a proxy or certificate cannot be used.
    """
    openai, options = _package(), _options(settings)
    options["http_client"] = _many_connections(openai, settings)
    if settings.azure is not None:
        return openai.AsyncAzureOpenAI(**options, max_retries=0)  # type: ignore[no-any-return]
    return openai.AsyncOpenAI(**options, max_retries=0)  # type: ignore[no-any-return]


def connect_for_files(settings: ServiceSettings) -> OpenAI:
    """The blocking client of the package openai, for few and large requests, without its own retries.

    Raises:
        MissingExtraError: when the package openai is not installed.
        SettingsError: when the key's environment variable is not set, or a proxy or certificate cannot be used.
    """
    openai, options = _package(), _options(settings)
    if settings.azure is not None:
        return openai.AzureOpenAI(**options, max_retries=0)  # type: ignore[no-any-return]
    return openai.OpenAI(**options, max_retries=0)  # type: ignore[no-any-return]


def _many_connections(openai: Any, settings: ServiceSettings) -> Any:
    """The HTTP client: aiohttp, because the cost of a request in httpx2 grows with the number of open requests."""
    import httpx2

    most = httpx2.Limits(max_connections=settings.concurrency, max_keepalive_connections=settings.concurrency)
    # aiohttp does not support SOCKS proxies.
    make = openai.DefaultAsyncHttpxClient if uses_socks() else openai.DefaultAioHttpClient
    return make(limits=most, timeout=settings.timeout)


def _package() -> Any:
    try:
        import openai
    except ImportError:
        raise MissingExtraError.of("openai", "openai") from None
    return openai


def _options(settings: ServiceSettings) -> dict[str, Any]:
    check_network()
    options = {"api_key": settings.api_key(), "timeout": settings.timeout}
    if settings.azure is not None:
        return options | {"azure_endpoint": settings.base_url, "api_version": settings.azure.api_version}
    # Always set, so that an OPENAI_BASE_URL in the environment cannot redirect samples and key.
    return options | {"base_url": settings.base_url or "https://api.openai.com/v1"}


# Not "not found": a gateway answers so while the service behind it starts.
_REFUSALS = ("unauthorised", "forbidden", "quota used up", "parameter refused")


def service_error(settings: ServiceSettings, fault: Fault) -> ServiceError:
    """The error for a service that answers no request."""
    actions = {
        "unauthorised": f"check that the key in {settings.api_key_env} is valid for this service"
        if settings.api_key_env
        else "set 'api_key_env' to the environment variable with the service's key",
        "forbidden": "check the permissions of the key, and the account",
        "not found": "check 'base_url' and 'model' (on Azure: 'deployment' and 'api_version')",
        "quota used up": "add credit to the account, then start again",
        "wants to wait": "start again later, or raise 'patience'",
        "parameter refused": fix_of(fault.detail),
    }
    waited = f"; requests were retried for up to {settings.patience:g} s ('patience')" if fault.absent else ""
    return ServiceError(
        f"{_address(settings)} does not answer requests to the model '{settings.model}': {fault}",
        action=actions.get(fault.kind, f"check that the service works{waited}") + "; finished answers are kept",
        permanent=fault.kind in _REFUSALS,
    )


def _address(settings: ServiceSettings) -> str:
    return settings.base_url or "OpenAI"


def _given_up(fault: Fault, course: Course) -> Fault:
    if fault.kind == "parameter refused":
        return Fault(fault.kind, f"{fault.detail}; to do: {fix_of(fault.detail)}")
    return Fault(fault.kind, f"{fault.detail} (sent {course.sent} times)") if fault.passing else fault


def _connection_fault(error: BaseException) -> Fault:
    """The fault behind an error of the package openai or its HTTP client, by the root cause."""
    import aiohttp
    import httpx2

    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    words = next((str(one) for one in reversed(causes) if str(one)), "")
    detail = shortened(f"{type(causes[-1]).__name__}: {words}")
    if any(isinstance(one, (aiohttp.ClientConnectorError, httpx2.ConnectError, httpx2.ProxyError)) for one in causes):
        return Fault("no connection", detail)
    if any(isinstance(one, TimeoutError) for one in causes):
        return Fault("timeout", "the connection took too long")
    return Fault("connection lost", detail)


def _wait_before(sent: int, retry_after: float | None) -> float:
    """Seconds before the next try: exponential backoff with jitter, so clients that failed together spread out."""
    wait = random.uniform(0.1, 1.0) * min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(sent - 1, 10))
    return wait if retry_after is None else retry_after + min(wait, 1.0)
