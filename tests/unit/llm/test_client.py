"""The client against a server on a real socket that makes every fault."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tamis.core.errors import SettingsError
from tamis.llm.client import Call, ServiceError
from tamis.llm.faults import Fault
from tamis.llm.replies import Reply
from tamis.llm.settings import ServiceSettings
from tamis.llm.stream import stream
from tests.llm_server import Asked, Reaction, Server, completion, error, hostile, most_within

pytest.importorskip("openai")


def service(server: Server, **values: Any) -> ServiceSettings:
    values = {"model": "m", "base_url": server.url, "api_key_env": None, "timeout": 0.5, "patience": 20.0} | values
    return ServiceSettings(**values)


def ask(settings: ServiceSettings, count: int = 1, tokens: tuple[float, float] = (0, 0)) -> dict[int, Reply | Fault]:
    def call(job: int) -> Call:
        return Call({"messages": [{"role": "user", "content": f"{job}"}], "temperature": 0}, *tokens)

    outcomes: dict[int, Reply | Fault] = {}
    for group in stream(settings, iter(range(count)), call):
        for job, outcome in group:
            assert job not in outcomes
            outcomes[job] = outcome
    return outcomes


def scripted(*reactions: Reaction) -> Server:
    return Server(lambda asked: reactions[min(asked.number, len(reactions) - 1)])


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tamis.llm.client._FIRST_WAIT", 0.02)
    monkeypatch.setattr("tamis.llm.health._FIRST_PAUSE", 0.1)
    monkeypatch.setattr("tamis.llm.health._SURE", 0.2)


def test_many_requests_are_under_way_at_once_and_none_is_lost() -> None:
    with Server(lambda asked: Reaction(completion(asked.prompt), delay=0.02)) as server:
        outcomes = ask(service(server, concurrency=30), 300)
    assert {job: outcome.text for job, outcome in outcomes.items()} == {job: str(job) for job in range(300)}  # type: ignore[union-attr]
    assert 16 < server.most_at_once <= 30
    assert server.asked[0].body["model"] == "m"


def test_each_of_many_requests_at_once_has_a_connection_that_stays() -> None:
    with Server(lambda asked: Reaction(completion(), delay=0.5)) as server:
        outcomes = ask(service(server, concurrency=250, timeout=60), 1000)
    assert all(isinstance(outcome, Reply) for outcome in outcomes.values())
    assert 150 < server.most_at_once <= 250
    assert server.connections <= 500  # one that nobody used for five seconds is closed


@pytest.mark.parametrize(
    "fault",
    [
        Reaction(error("slow down"), 429),
        Reaction(error("boom"), 500),
        Reaction(b"", 503),
        Reaction(completion(), reset_after=30),
        Reaction(hang=True),
        Reaction(completion(), drip=0.01),
        Reaction(b""),
        Reaction(b"{"),
        Reaction([]),
        Reaction({"choices": []}),
    ],
    ids=["429", "500", "503", "reset", "hang", "drip", "empty", "no-json", "list", "no-choice"],
)
def test_a_technical_fault_is_tried_again(fault: Reaction) -> None:
    with scripted(fault, fault, Reaction(completion("fine"))) as server:
        assert ask(service(server))[0] == Reply("fine", prompt_tokens=100, completion_tokens=30)
    assert len(server.asked) == 3


@pytest.mark.parametrize("header", ["seconds", "date"])
def test_nothing_is_sent_before_the_time_that_the_service_named(header: str) -> None:
    from email.utils import formatdate

    value = "1" if header == "seconds" else formatdate(time.time() + 2, usegmt=True)
    with scripted(Reaction(error("slow"), 429, {"Retry-After": value}), Reaction(completion())) as server:
        ask(service(server, concurrency=1, timeout=5), 5)
    assert len(server.asked) == 6
    # A date has whole seconds, so two seconds may be little more than one.
    assert 0.95 <= server.asked[1].at - server.asked[0].at < 4
    assert server.asked[5].at - server.asked[1].at < 0.5


def test_a_request_is_given_up_after_its_tries_and_says_why() -> None:
    def behave(asked: Asked) -> Reaction:
        return Reaction(error("boom"), 500) if asked.prompt in ("3", "5") else Reaction(completion(), delay=0.05)

    with Server(behave) as server:
        outcomes = ask(service(server, tries=3, concurrency=4, timeout=5), 60)
    sent = Counter(asked.prompt for asked in server.asked)
    for job in (3, 5):
        assert str(outcomes[job]) == f"server error: 500 boom (sent {sent[str(job)]} times)"
        assert sent[str(job)] >= 3  # those sent before anything was answered are no tries: the service may be away
    # One that was answered may be sent again, to see whether the service is there.
    assert all(sent[str(job)] == 1 for job in range(6, 60))


def test_being_told_to_come_later_costs_patience_and_not_tries() -> None:
    with scripted(*[Reaction(error("slow down"), 429)] * 6, Reaction(completion())) as server:
        assert isinstance(ask(service(server, tries=2))[0], Reply)
    with scripted(Reaction(error("slow down"), 429)) as server:
        fault = ask(service(server, patience=0.3))[0]
    assert isinstance(fault, Fault)
    assert fault.kind == "rate limited"


def test_waiting_for_its_first_turn_costs_a_request_no_patience() -> None:
    """The last of twelve waits for a second, and then meets a fault for the first time."""
    sent: Counter[str] = Counter()

    def behave(asked: Asked) -> Reaction:
        sent[asked.prompt] += 1
        late = asked.prompt == "11" and sent["11"] == 1
        return Reaction(error("boom"), 500) if late else Reaction(completion(), delay=0.1)

    with Server(behave) as server:
        outcomes = ask(service(server, concurrency=1, patience=0.6), 12)
    assert isinstance(outcomes[11], Reply)
    assert sent["11"] == 2


def test_the_wait_between_two_sendings_is_bounded_however_often_a_request_was_sent() -> None:
    from tamis.llm.client import _wait_before

    assert _wait_before(5000, None) <= 60


def test_a_wrong_key_is_said_soon_though_the_limits_let_few_requests_through() -> None:
    with scripted(Reaction(error("Incorrect API key provided"), 401)) as server:
        start = time.monotonic()
        with pytest.raises(ServiceError, match="unauthorised"):
            ask(service(server, limits={"requests_per_minute": 30}, concurrency=8), 64)
    assert time.monotonic() - start < 8
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("reaction", "kind", "most"),
    [
        (Reaction(error("Incorrect API key provided"), 401), "unauthorised", 8),
        (Reaction(error("no"), 403), "forbidden", 100),  # a firewall's word about texts, perhaps
        (Reaction(error("no such model"), 404), "not found", 8),
        (Reaction(error("no credit", "insufficient_quota"), 429), "quota used up", 8),
        (Reaction(error("tomorrow"), 429, {"Retry-After": "90000"}), "wants to wait", 8),
        (Reaction(error("'temperature' is not supported"), 400), "parameter refused", 40),
        (Reaction(error("strange"), 400), "bad request", 40),
    ],
)
def test_a_hopeless_service_stops_all_soon_and_the_key_is_never_said(
    reaction: Reaction, kind: str, most: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-very-secret")
    caplog.set_level(logging.DEBUG)
    with scripted(reaction) as server, pytest.raises(ServiceError, match=f": {kind}: ") as raised:
        ask(service(server, api_key_env="TEST_KEY", concurrency=4), 1000)
    assert len(server.asked) <= most
    assert server.asked[0].headers["authorization"] == "Bearer sk-very-secret"
    assert "sk-very-secret" not in str(raised.value) + caplog.text
    refused = kind in ("unauthorised", "forbidden", "quota used up", "parameter refused")
    assert raised.value.exit_code == (78 if refused else 1)


def test_what_was_under_way_when_the_service_closed_is_still_delivered() -> None:
    def behave(asked: Asked) -> Reaction:
        return Reaction(completion(), delay=0.3) if asked.number < 9 else Reaction(error("key"), 401, delay=0.1)

    outcomes = []
    with Server(behave) as server:
        going = stream(service(server, concurrency=10), iter(range(500)), lambda job: Call({"messages": []}))
        with pytest.raises(ServiceError):
            outcomes.extend(going)
    assert sum(map(len, outcomes)) == 9


def away(server: Server, seconds: float, fault: Callable[[], Reaction]) -> Callable[[Asked], Reaction]:
    """Answers 30 requests, then makes `fault` for so long."""

    def behave(asked: Asked) -> Reaction:
        if asked.number < 30 or asked.at - server.asked[30].at > seconds:
            return Reaction(completion(), delay=0.01)
        return fault()

    return behave


OUTAGES = {
    "503": lambda: Reaction(error("no healthy upstream"), 503),
    "502": lambda: Reaction(b"<html>Bad Gateway</html>", 502),
    "500": lambda: Reaction(error("boom"), 500),
    "reset": lambda: Reaction(completion(), reset_after=10),
    "empty": lambda: Reaction(b""),
}


@pytest.mark.parametrize(("kind", "tries"), [("503", 1), *((kind, 8) for kind in OUTAGES)])
def test_an_outage_is_waited_for_with_one_request_at_a_time(
    kind: str, tries: int, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    server.behave = away(server, 4.0, OUTAGES[kind])
    with server:
        outcomes = ask(service(server, concurrency=16, tries=tries), 200)
    assert [job for job, outcome in outcomes.items() if isinstance(outcome, Fault)] == []
    start = server.asked[30].at
    # The first moment shows that it is no request's own fault.
    assert len([one for one in server.asked if start + 2.0 < one.at < start + 4.0]) <= 5
    said = [record.levelname for record in caplog.records if record.name.startswith("tamis")]
    assert said == ["WARNING"] * 2  # away, back again
    after = [one.at for one in server.asked if one.at > start + 4.0]
    assert most_within(after, 0.1) > 5  # and then at full speed


def test_a_server_that_is_gone_and_comes_back_is_waited_for() -> None:
    server = Server(lambda asked: Reaction(completion(), delay=0.02))
    outcomes: dict[int, Reply | Fault] = {}
    with server:
        settings = service(server, concurrency=8)
        going = stream(settings, iter(range(300)), lambda job: Call({"messages": []}))
        while len(outcomes) < 50:
            outcomes.update(next(going))
    back = threading.Timer(2.0, server.__enter__)
    back.start()
    try:
        for group in going:
            outcomes.update(group)
    finally:
        back.join()
        server.__exit__()
    assert sorted(outcomes) == list(range(300))
    assert all(isinstance(outcome, Reply) for outcome in outcomes.values())


@pytest.mark.parametrize("kind", ["503", "empty"])
def test_a_service_that_stays_away_is_given_up_when_patience_ends(kind: str) -> None:
    with scripted(OUTAGES[kind]()) as server:
        start = time.monotonic()
        with pytest.raises(ServiceError) as raised:
            ask(service(server, concurrency=8, patience=2.0), 5000)
        assert 1.9 < time.monotonic() - start < 4
    assert raised.value.code == "service"
    assert len(server.asked) < 150


def test_no_server_at_all_is_said_plainly() -> None:
    with Server() as server:
        settings = service(server, patience=1.0)
    with pytest.raises(ServiceError, match="no connection"):
        ask(settings, 100)


@pytest.mark.parametrize(
    ("fault", "concurrency"),
    [
        (Reaction(error("boom"), 500), 4),
        (Reaction(error("boom"), 500), 64),
        (Reaction(error("firewall"), 403), 4),
        (Reaction(error("firewall"), 403), 64),
        (Reaction(error("the text 'what temperature' is not allowed"), 400), 64),
        (Reaction(error("no"), 401), 64),
        (Reaction(error("not here"), 404), 64),
        (Reaction(b""), 64),
    ],
)
def test_samples_that_fail_by_their_text_do_not_end_the_run(fault: Reaction, concurrency: int) -> None:
    """Twenty-four of 480, all over it; when the others are done, only they are left."""
    with Server(lambda asked: fault if int(asked.prompt) % 20 == 7 else Reaction(completion(), delay=0.01)) as server:
        start = time.monotonic()
        outcomes = ask(service(server, concurrency=concurrency), 480)
    assert {job for job, outcome in outcomes.items() if isinstance(outcome, Fault)} == set(range(7, 480, 20))
    assert time.monotonic() - start < 15
    assert max(Counter(asked.prompt for asked in server.asked).values()) <= 9


def test_what_probes_took_is_told_with_cached_tokens_and_thoughts() -> None:
    """Of 60 samples the last 20 fail; telling that from an outage takes probes, which are charged as others are."""
    usage = {"prompt_tokens": 100, "completion_tokens": 30}
    usage |= {"prompt_tokens_details": {"cached_tokens": 40}, "completion_tokens_details": {"reasoning_tokens": 20}}
    boom = Reaction(error("boom"), 500)
    with Server(lambda asked: boom if int(asked.prompt) >= 40 else Reaction(completion() | {"usage": usage})) as server:
        outcomes = ask(service(server, concurrency=4), 60).values()
        charged = sum(int(asked.prompt) < 40 for asked in server.asked)
    assert sum(isinstance(outcome, Fault) for outcome in outcomes) == 20
    assert charged > 40
    for name, each in (("prompt", 100), ("completion", 30), ("cached", 40), ("reasoning", 20)):
        assert sum(getattr(outcome, f"{name}_tokens") or 0 for outcome in outcomes) == each * charged


def test_only_samples_that_fail_by_their_text_are_left_of_an_earlier_run() -> None:
    """Nothing tells them from an outage, so that patience has to end; then they are given up, and nothing else."""
    for fault, patience in ((Reaction(error("firewall"), 403), 60.0), (Reaction(error("boom"), 500), 1.5)):
        with scripted(fault) as server:
            outcomes = ask(service(server, patience=patience), 12)
        assert all(isinstance(outcome, Fault) for outcome in outcomes.values())
        assert len(outcomes) == 12


@pytest.mark.parametrize(("status", "number"), [(401, 0), (401, 50), (402, 50), (403, 0), (403, 50), (404, 50)])
def test_a_single_denial_ends_nothing(status: int, number: int) -> None:
    blip = Reaction(error("no"), status)
    with Server(lambda asked: blip if asked.number == number else Reaction(completion(), delay=0.01)) as server:
        outcomes = ask(service(server, concurrency=8), 100)
    assert all(isinstance(outcome, Reply) for outcome in outcomes.values())
    assert len(server.asked) == 101


def test_a_key_that_is_revoked_on_the_way_is_said_soon() -> None:
    with (
        Server(
            lambda asked: Reaction(error("revoked"), 401) if asked.number >= 100 else Reaction(completion(), delay=0.01)
        ) as server,
        pytest.raises(ServiceError, match="unauthorised"),
    ):
        ask(service(server, concurrency=8), 1000)
    assert len(server.asked) < 130


def test_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    with pytest.raises(SettingsError, match="TEST_KEY"):
        ask(ServiceSettings(model="m", api_key_env="TEST_KEY"))


def test_an_address_in_the_environment_does_not_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    from tamis.llm.client import connect

    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    assert str(connect(ServiceSettings(model="m", api_key_env=None)).base_url) == "https://api.openai.com/v1/"


def test_azure_is_asked_at_its_deployment_with_its_own_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_KEY", "k")
    azure = {"deployment": "mini-west", "api_version": "2024-10-21"}
    with Server() as server:
        endpoint = f"http://127.0.0.1:{server.port}"
        ask(service(server, base_url=endpoint, azure=azure, api_key_env="AZURE_KEY"))
    assert server.asked[0].path == "/openai/deployments/mini-west/chat/completions?api-version=2024-10-21"
    assert server.asked[0].headers["api-key"] == "k"


def test_the_limits_hold_at_the_server_through_every_fault() -> None:
    """A few hundred requests in some seconds: 6,000 a minute are 100 in any second, and one bucket's burst of 100."""
    limits = {"requests_per_minute": 6000, "tokens_per_minute": 6000 * 120}
    with Server(hostile(1, share=0.7)) as server:
        outcomes = ask(service(server, limits=limits, concurrency=200, timeout=0.4), 400, tokens=(100, 30))
    assert len(outcomes) == 400
    times = [asked.at for asked in server.asked]
    assert most_within(times, 1.0) <= 200
    assert most_within(times, 2.0) <= 300
    span = times[-1] - times[0]
    assert len(times) <= 100 + 100 * span
    kinds = Counter(outcome.kind for outcome in outcomes.values() if isinstance(outcome, Fault))
    assert {"content filter", "too long"} <= kinds.keys()


def test_a_caller_that_stops_leaves_nothing_running() -> None:
    with Server(lambda asked: Reaction(hang=asked.number > 3, body=completion())) as server:
        going = stream(service(server, timeout=60), iter(range(50)), lambda job: Call({"messages": []}))
        next(going)
        start = time.monotonic()
        going.close()  # type: ignore[attr-defined]
    assert time.monotonic() - start < 5
