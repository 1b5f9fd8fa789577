"""The openai backend and the stage around it, against servers on real sockets."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tamis.core.artifacts import Artifact
from tamis.core.errors import ModelError, SettingsError
from tamis.core.settings import parse as parse_settings
from tamis.llm.backend import Request
from tamis.llm.backends.logprobs import key_probabilities, probabilities_of_ids
from tamis.llm.backends.openai import OpenAIBackend, OpenAISettings, answer_of
from tamis.llm.backends.sampling import Sampling
from tamis.llm.budget import SpentError
from tamis.llm.faults import Fault
from tamis.llm.first import UnreadableError
from tamis.llm.replies import Reply
from tamis.rating.merging import run as merge
from tamis.rating.prompts import load_prompt
from tamis.rating.settings import MergeSettings, RatingSettings
from tamis.rating.stage import plan, run
from tests.artifacts import conversation, make_pool
from tests.llm_server import GOOD, Asked, Reaction, Server, completion, error, hostile
from tests.paper_prompt import FORM, Scores, rating_of, write

pytest.importorskip("openai")
PROMPT = load_prompt("ds2-v1")
REQUEST = Request("a" * 32, "### user: Hi\n### assistant: Hello")


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tamis.llm.client._FIRST_WAIT", 0.02)
    monkeypatch.setattr("tamis.llm.health._FIRST_PAUSE", 0.1)
    monkeypatch.setattr("tamis.llm.health._SURE", 0.2)


def settings(server: Server, store: Path | None = None, **own: Any) -> RatingSettings:
    backend = {"kind": "openai", "model": "m", "base_url": server.url, "api_key_env": None, "timeout": 0.5}
    values = {"name": "mini", "backend": backend | own.pop("backend", {})} | own
    return parse_settings(RatingSettings, values | ({"store": str(store)} if store else {}), where="here")


def pool_of(count: int, folder: Path) -> Path:
    return make_pool(folder / "pool", [conversation(f"What is {n}?", f"A number, {n}.") for n in range(count)])


def stored(store: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for part in store.glob("*/*.jsonl") for line in part.read_text().splitlines()]


def tokens(*parts: str, last: dict[str, float] | None = None, at: int = -2) -> list[dict[str, Any]]:
    """Tokens with their probabilities; `last` are the alternatives at place `at`."""
    found = [{"token": part, "logprob": math.log(0.9), "top_logprobs": []} for part in parts]
    if last:
        found[at]["top_logprobs"] = [{"token": token, "logprob": math.log(share)} for token, share in last.items()]
        found[at]["logprob"] = math.log(last.get(found[at]["token"], 0.9))
    return found


HEAD = GOOD[: GOOD.rindex(":") + 2]


@pytest.mark.parametrize(
    ("parts", "alternatives", "shares"),
    [
        ((HEAD, "7", "}"), {"7": 0.5, "8": 0.25, "10": 0.25}, {7: 0.5, 8: 0.25, 10: 0.25}),
        ((HEAD[:-1], " 7", "}"), {" 7": 0.6, "7": 0.2, " six": 0.2}, {7: 1.0}),
        ((HEAD[:-2], ": 7", "}"), {": 7": 0.5, ": 9": 0.5, ":": 0.1}, {7: 0.5, 9: 0.5}),
        ((HEAD, "7}"), {"7}": 0.75, "6}": 0.25}, {7: 0.75, 6: 0.25}),
        ((HEAD, "7", "}"), {"7": 0.8, "11": 0.1, "0": 0.1}, {7: 1.0}),
    ],
)
def test_probabilities_are_read_at_the_overall_rating(
    parts: tuple[str, ...], alternatives: dict[str, float], shares: dict[int, float]
) -> None:
    found = key_probabilities(FORM, "".join(parts), tokens(*parts, last=alternatives, at=-1 if len(parts) == 2 else -2))
    assert found == pytest.approx([shares.get(n, 0.0) for n in range(1, 11)])


def test_a_ten_of_two_tokens_shares_with_the_one() -> None:
    answer = tokens(HEAD, "1", "0", "}", last={"1": 0.8, "9": 0.2}, at=1)
    answer[2]["top_logprobs"] = [{"token": "0", "logprob": math.log(0.75)}, {"token": "}", "logprob": math.log(0.25)}]
    answer[2]["logprob"] = math.log(0.75)
    found = key_probabilities(FORM, HEAD + "10}", answer)
    assert found == pytest.approx([0.2, 0, 0, 0, 0, 0, 0, 0, 0.2, 0.6])
    unknown = tokens(HEAD, "7", "}", last={"7": 0.9, "1": 0.1})
    assert key_probabilities(FORM, HEAD + "7}", unknown) is None  # a "0" might have followed the "1"
    known = tokens(HEAD, "7", "}", last={"7": 0.8, "1": 0.1, "10": 0.1})
    assert key_probabilities(FORM, HEAD + "7}", known) == pytest.approx([0.1, 0, 0, 0, 0, 0, 0.8, 0, 0, 0.1])


DRAFT = [{"token": one, "logprob": -0.1, "top_logprobs": []} for one in ("<think>", HEAD, "2", "}", "</think>", "\n")]


@pytest.mark.parametrize(
    ("before", "text"),
    [
        (DRAFT, HEAD + "9}"),  # the service parts the thoughts from the content, but not from the logprobs
        (DRAFT, "<think>" + HEAD + "2}</think>\n" + HEAD + "9}"),
        ([{"token": "<|start|>", "logprob": 0.0, "top_logprobs": []}], HEAD + "9}"),
        ([{"token": "\\xe2", "bytes": [226], "logprob": 0.0, "top_logprobs": []}], HEAD + "9}"),
    ],
)
def test_probabilities_are_read_where_the_answer_is_though_tokens_hold_more(
    before: list[dict[str, Any]], text: str
) -> None:
    answer = tokens(HEAD, "9", "}", "<|im_end|>", last={"9": 0.75, "8": 0.25}, at=1)
    found = key_probabilities(FORM, text, [*before, *answer])
    assert found == pytest.approx([0, 0, 0, 0, 0, 0, 0, 0.25, 0.75, 0])


def test_probabilities_are_read_through_what_is_forgiven_and_only_where_one_place_can_be_meant() -> None:
    head = HEAD.replace("Overall rating", "overall_rating")
    answer = tokens("Grüße: ```", head, "9", "}", last={"9": 0.75, "8": 0.25}, at=2)
    shares = [0, 0, 0, 0, 0, 0, 0, 0.25, 0.75, 0]
    assert key_probabilities(FORM, f"Grüße: ```{head}9}}", answer) == pytest.approx(shares)
    twice = tokens(HEAD, "9", "}", HEAD, "9", "}")
    assert key_probabilities(FORM, 2 * f"{HEAD}9}}", twice) is None


def test_of_token_ids_the_same_is_read_though_a_first_token_loses_its_space() -> None:
    """As SentencePiece's decoders do: a text never begins with the space of its first token."""
    words = [*HEAD.rstrip().split(" "), "7", "9", "}"]

    def decode(ids: Sequence[int]) -> str:
        return "".join(f" {words[one]}" if one < len(words) - 1 else words[one] for one in ids).removeprefix(" ")

    ids = [*range(len(words) - 2), len(words) - 1]
    named = [{one: 0.0} for one in ids]
    named[-2] = {ids[-2]: math.log(0.75), ids[-2] + 1: math.log(0.25)}
    found = probabilities_of_ids(FORM, ids, named, decode)
    assert decode(ids) == HEAD + "7}"
    assert found is not None
    assert found[0] == pytest.approx([0, 0, 0, 0, 0, 0, 0.75, 0, 0.25, 0])
    assert probabilities_of_ids(FORM, ids[:3], named, decode) is None


@pytest.mark.parametrize(
    "strange",
    [[], [{"token": GOOD}], [{"token": 3, "logprob": 0}], tokens(HEAD, "7", "}", last={"a": 0.9}), tokens("other")],
)
def test_where_the_tokens_do_not_tell_nothing_is_claimed(strange: list[dict[str, Any]]) -> None:
    text = "".join(str(one["token"]) for one in strange)
    if strange[1:]:
        strange[1]["logprob"] = math.log(0.1)
    assert key_probabilities(FORM, text, strange) is None


@pytest.mark.parametrize(
    ("outcome", "problem"),
    [
        (Reply(GOOD), None),
        (Reply("", refusal="No."), "refused"),
        (Reply("", finish="content_filter"), "refused"),
        (Reply("I'm sorry, but I can't help with that."), "refused"),
        (Reply("I cannot rate this."), "refused"),
        (Reply("Sorry is a word. " + GOOD), None),
        (Reply("The sample is good."), None),
        (Reply("<think>I cannot tell.</think>" + GOOD), None),
        (Reply("<think>Easy.</think>I cannot rate this."), "refused"),
        (Reply("", finish="SAFETY"), "refused"),
        (Reply("", raw="{}"), "failed"),
        (Fault("content filter"), "refused"),
        (Fault("too long"), "too_long"),
        (Fault("timeout"), "failed"),
        (Fault("bad request"), "failed"),
    ],
)
def test_what_a_reply_says_about_the_sample(outcome: Reply | Fault, problem: str | None) -> None:
    assert answer_of(REQUEST, outcome, shortened=False, form=FORM).problem == problem


def test_an_answer_among_thoughts_is_read_if_these_ended_by_themselves() -> None:
    found = answer_of(REQUEST, Reply("", thoughts=f"So: {GOOD}"), shortened=False, form=FORM)
    rating = rating_of(found, 1)
    assert (rating.status, rating.overall, rating.lenient) == ("ok", 7, "answer among thoughts, words around")
    cut = answer_of(REQUEST, Reply("", "length", thoughts=f"So: {GOOD}"), shortened=False, form=FORM)
    assert rating_of(cut, 1).status == "unparsable"


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply("", "length", thoughts="Let me think"), "thoughts took all tokens"),
        (Reply("", "length", reasoning_tokens=128), "thoughts took all tokens"),
        (Reply("<think>Let me think", "length"), "thoughts took all tokens"),
        (Reply(GOOD[:20], "length"), "cut off"),
        (Reply(""), "empty answer"),
    ],
)
def test_why_there_are_no_scores_is_told_apart(reply: Reply, kind: str) -> None:
    rating = rating_of(answer_of(REQUEST, reply, shortened=False, form=FORM), 1)
    assert (rating.status, str(rating.error).partition(":")[0]) == ("unparsable", kind)
    assert ("enable_thinking" in str(rating.error)) == (kind == "thoughts took all tokens")


@pytest.mark.parametrize(
    ("model", "own", "tokens"),
    [
        ("gpt-4o-mini", {}, 0),
        ("o3-mini", {}, 4096),
        ("openai/gpt-oss-20b", {}, 4096),
        ("Qwen/Qwen3-8B", {}, 4096),
        ("Qwen/Qwen3-4B-Instruct-2507", {}, 0),
        ("Qwen/Qwen3-8B", {"extra": {"chat_template_kwargs": {"enable_thinking": False}}}, 0),
        ("gemini-2.5-flash", {"extra": {"reasoning_effort": "none"}}, 0),
        ("glm-4.6", {"extra": {"thinking": {"type": "disabled"}}}, 0),
        ("openrouter/qwen3-8b", {"extra": {"reasoning": {"enabled": False}}}, 0),
        ("deepseek-reasoner", {"max_thinking_tokens": 500}, 500),
        ("deepseek-chat", {}, 0),
        ("mine", {"max_thinking_tokens": 500}, 500),
        ("meta-llama/Llama-3.1-8B-Instruct", {}, 0),
    ],
)
def test_a_thinking_model_has_tokens_for_its_thoughts_beside_those_of_its_answer(
    model: str, own: dict[str, Any], tokens: int
) -> None:
    backend = OpenAIBackend(OpenAISettings(model=model, **own), PROMPT, Sampling())
    assert backend.body(REQUEST, "x")["max_completion_tokens"] == 128 + tokens
    assert backend.identity.get("max_thinking_tokens", 0) == tokens
    assert ("max_thinking_tokens" in backend.identity) == (tokens > 0)  # other models' ratings stay what they were
    assert backend.measure(["x"])[0].completion_tokens >= tokens


def backend_of(sampling: Sampling = Sampling(), **values: Any) -> OpenAIBackend:  # noqa: B008
    return OpenAIBackend(OpenAISettings(model="m", **values), PROMPT, sampling)


def test_the_request_has_the_schema_the_limit_and_the_sampling() -> None:
    body = backend_of(Sampling(1.2, 0.9, 50, 7), extra={"metadata": {"a": "b"}}).body(REQUEST, REQUEST.text)
    schema = body["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["properties"]["Overall rating"] == {"type": "integer", "enum": list(range(1, 11))}
    sent = (body["temperature"], body["top_p"], body["top_k"], body["max_completion_tokens"], body["metadata"])
    assert sent == (1.2, 0.9, 50, 128, {"a": "b"})
    assert (body["logprobs"], body["top_logprobs"]) == (True, 10)
    assert body["messages"] == [{"role": "user", "content": PROMPT.before + REQUEST.text + PROMPT.after}]
    second = backend_of(Sampling(1.2, 0.9, 50, 7)).body(Request(REQUEST.id, REQUEST.text, 2), REQUEST.text)
    assert 0 <= second["seed"] != body["seed"]


def test_the_request_leaves_out_what_a_server_does_not_know() -> None:
    backend = backend_of(structured="none", logprobs=False, answer_limit="max_tokens", extra={"temperature": None})
    assert backend.body(REQUEST, "x").keys() == {"messages", "max_tokens"}


@pytest.mark.parametrize("exact", [False, True])
def test_a_long_sample_loses_its_middle(exact: bool, request: pytest.FixtureRequest) -> None:
    tokenizer = str(request.getfixturevalue("tiny")) if exact else None
    backend = backend_of(max_sample_tokens=100, tokenizer=tokenizer)
    text = "### user: Erzähle.\n### assistant: " + "Es war einmal, ein größerer Satz. " * 60 + "Ende gut."
    job = backend._job(Request("b" * 32, text))
    assert job.shortened
    assert job.text.startswith("### user: Erzähle.")
    assert job.text.endswith("Ende gut.")
    assert PROMPT.marker in job.text
    assert 90 <= backend._lengths.count([job.text])[0] <= 104
    (size,) = backend.measure([text])
    assert (size.shortened, size.prompt_tokens) == (True, job.tokens)
    whole = backend._job(REQUEST)
    assert (whole.text, whole.shortened) == (REQUEST.text, False)


def test_ratings_come_with_scores_probabilities_and_tokens(tmp_path: Path) -> None:
    def behave(asked: Asked) -> Reaction:
        score = 1 + len(asked.prompt) % 10
        answer = write(Scores(1, 2, 3, score))
        head = answer[: answer.rindex(":") + 2]
        logprobs = tokens(head, str(score), "}", last={str(score): 0.5, "5": 0.5, "10": 0.0001})
        return Reaction(completion(answer, logprobs=logprobs))

    pool = pool_of(30, tmp_path)
    with Server(behave) as server:
        manifest = run(settings(server), pool=pool, out=tmp_path / "out")
    table = Artifact.open(tmp_path / "out", "ratings").table()
    assert table["id"].to_pylist() == Artifact.open(pool).table(["id"])["id"].to_pylist()
    assert manifest.facts["ok"] == 30
    assert manifest.models == {"rater": "m"}
    row = table.to_pylist()[0]
    assert row["expected"] == pytest.approx((row["overall"] + 5) / 2, abs=0.01)
    assert (row["prompt_tokens"], row["completion_tokens"], row["attempts"]) == (100, 30, 1)


def test_blocks_are_rated_without_a_pause_and_written_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first sample's answer comes last of all; blocks of ten go on meanwhile."""
    monkeypatch.setattr("tamis.rating.rater.BLOCK", 10)
    pool = pool_of(60, tmp_path)
    with Server(lambda asked: Reaction(completion(), delay=3 if asked.number == 0 else 0)) as server:
        run(settings(server, backend={"concurrency": 4, "timeout": 9}), pool=pool, out=tmp_path / "out")
        last = max(asked.at for asked in server.asked) - server.asked[0].at
    ids = Artifact.open(tmp_path / "out").table(["id"])["id"].to_pylist()
    assert ids == Artifact.open(pool).table(["id"])["id"].to_pylist()
    assert last < 2  # nobody waited for the slow one


def test_unparsable_answers_are_asked_again_with_another_seed(tmp_path: Path) -> None:
    with Server(lambda asked: Reaction(completion("hm" if asked.number < 6 else GOOD))) as server:
        mine = settings(server, temperature=1.0, backend={"concurrency": 1})
        manifest = run(mine, pool=pool_of(6, tmp_path), out=tmp_path / "out")
    assert (manifest.facts["ok"], manifest.facts["prompt_tokens"], len(server.asked)) == (6, 1200, 12)
    assert len({asked.body["seed"] for asked in server.asked}) == 12


@pytest.mark.parametrize("seed", [1, 2])
def test_a_hostile_service_leaves_no_sample_without_a_status_and_no_rating_twice(seed: int, tmp_path: Path) -> None:
    store, pool = tmp_path / "store", pool_of(250, tmp_path)
    limits = {"requests_per_minute": 9000}
    with Server(hostile(seed)) as server:
        mine = settings(
            server, store, max_failure_share=1.0,
            backend={"timeout": 0.3, "tries": 4, "patience": 5, "concurrency": 50, "limits": limits},
        )  # fmt: skip
        manifest = run(mine, pool=pool, out=tmp_path / "out")
        first = len(server.asked)
        again = run(mine.model_copy(update={"max_failure_share": 0.99}), pool=pool, out=tmp_path / "again")
    table = Artifact.open(tmp_path / "out").table().to_pylist()
    assert [row["id"] for row in table] == Artifact.open(pool).table(["id"])["id"].to_pylist()
    facts = manifest.facts
    counts = {status: facts[status] for status in ("ok", "unparsable", "refused", "too_long", "failed")}
    assert sum(counts.values()) == 250
    assert counts == {status: [row["status"] for row in table].count(status) for status in counts}
    assert sum(facts["errors"].values()) == 250 - counts["ok"]
    assert all((row["error"] is None) == (row["status"] == "ok") for row in table)
    assert min(counts["refused"], counts["too_long"]) > 0
    assert all(row["overall"] is None for row in table if row["status"] != "ok")
    final = {row["id"] for row in stored(store)}
    passing = counts["failed"] + counts["too_long"]
    assert len(final) >= 250 - passing
    assert again.facts["asked"] == passing  # nothing that had ended was paid for again
    span = server.asked[first - 1].at - server.asked[0].at
    assert first <= 150 + 150 * span  # 9,000 a minute, and the bucket's second


def test_what_was_forgiven_is_counted_over_reuse_and_shards(tmp_path: Path) -> None:
    def behave(asked: Asked) -> Reaction:
        number = int(asked.prompt.rsplit("What is ", 1)[1].split("?")[0])
        return Reaction(completion(f"Sure: {GOOD}" if number < 6 else GOOD.replace("7", '"7"') if number < 9 else GOOD))

    pool, counts = pool_of(12, tmp_path), {"number as text": 3, "words around": 6}
    with Server(behave) as server:
        mine = settings(server, tmp_path / "store")
        assert run(mine, pool=pool, out=tmp_path / "one").facts["lenient"] == counts
        assert (
            run(mine.model_copy(update={"max_failure_share": 0.2}), pool=pool, out=tmp_path / "two").facts["lenient"]
            == counts
        )
        parts = [tmp_path / f"part{number}" for number in (1, 2)]
        for number, part in enumerate(parts, 1):
            run(mine.model_copy(update={"shard": f"{number}/2"}), pool=pool, out=part)
        assert len(server.asked) == 12
    assert merge(MergeSettings(), pool=pool, ratings=parts, out=tmp_path / "merged").facts["lenient"] == counts


def test_a_paid_answer_that_is_not_understood_is_kept_once_and_read_by_a_later_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This version, made to know neither lists of parts nor words around an object, is the earlier one."""
    parts = [{"type": "text", "text": GOOD}]
    bodies: dict[int, Any] = {0: completion(parts), 1: completion(f"Sure: {GOOD}"), 2: completion("Seven.")}
    pool, store = pool_of(3, tmp_path), tmp_path / "store"

    def behave(asked: Asked) -> Reaction:
        return Reaction(bodies[int(asked.prompt.rsplit("What is ", 1)[1].split("?")[0])])

    with Server(behave) as server:
        mine = settings(server, store, max_failure_share=1.0, max_attempts=1)
        with monkeypatch.context() as earlier:
            earlier.setattr(
                "tamis.llm.replies._parts",
                lambda content: (content, "", "", True) if isinstance(content, str) else ("", "", "", False),
            )
            earlier.setattr("tamis.llm.forms._objects", lambda text: ([], text, []))
            facts = run(mine, pool=pool, out=tmp_path / "one").facts
        assert (facts["ok"], facts["failed"], facts["unparsable"], len(server.asked)) == (0, 1, 2, 3)
        kept = {one["status"]: one for one in stored(store)}
        assert json.loads(kept["failed"]["raw"])["choices"][0]["message"]["content"] == parts
        assert kept["failed"]["prompt_tokens"] == 100
        again = mine.model_copy(update={"max_failure_share": 0.9})
        facts = run(again, pool=pool, out=tmp_path / "two").facts
        assert (facts["ok"], facts["unparsable"], facts["asked"], len(server.asked)) == (2, 1, 0, 3)
        assert facts["prompt_tokens"] == 300
        assert plan(again, pool=pool).asked - plan(again, pool=pool).stored == 0


@pytest.mark.parametrize(
    "change",
    [
        {"usage": "odd"},
        {"usage": {"prompt_tokens": 3e9}},
        {"logprobs": [0.5]},
        {"logprobs": "odd"},
        {"content": "parts"},
    ],
)
def test_no_paid_answer_is_thrown_away_for_what_stands_beside_it(change: dict[str, Any], tmp_path: Path) -> None:
    body = completion([{"type": "text", "text": GOOD}] if "content" in change else GOOD)
    body |= {"usage": change["usage"]} if "usage" in change else {}
    body["choices"][0] |= {"logprobs": change["logprobs"]} if "logprobs" in change else {}
    with Server(lambda asked: Reaction(body)) as server:
        facts = run(settings(server), pool=pool_of(5, tmp_path), out=tmp_path / "out").facts
    assert (facts["ok"], len(server.asked)) == (5, 5)


def test_thoughts_are_read_over_and_one_that_has_all_tokens_says_what_helps(tmp_path: Path) -> None:
    with Server(lambda asked: Reaction(completion(None, finish="length", reasoning_content="Hm."))) as server:
        with pytest.raises(ModelError, match="enable_thinking"):
            run(settings(server, max_attempts=1), pool=pool_of(30, tmp_path), out=tmp_path / "out")
        server.behave = lambda asked: Reaction(completion(f"<think>{GOOD.replace('7', '1')}?</think>\n{GOOD}"))
        facts = run(settings(server), pool=tmp_path / "pool", out=tmp_path / "out").facts
    assert (facts["overall_histogram"]["7"], facts["lenient"]) == (30, {"thoughts": 30})


def test_a_pool_with_samples_that_the_service_takes_offence_at_is_finished(tmp_path: Path) -> None:
    """Twenty-four of 480 meet a firewall, a word that is also a parameter's, or a fault of the service's own."""
    reactions = [
        Reaction(error("blocked"), 403),
        Reaction(error("'temperature' is not allowed here"), 400),
        Reaction(error("boom"), 500),
    ]

    def behave(asked: Asked) -> Reaction:
        number = int(asked.prompt.rpartition("What is ")[2].partition("?")[0])
        return reactions[number // 20 % 3] if number % 20 == 5 else Reaction(completion(), delay=0.005)

    with Server(behave) as server:
        mine = settings(server, backend={"timeout": 60, "tries": 4})
        facts = run(mine, pool=pool_of(480, tmp_path), out=tmp_path / "out").facts
    assert (facts["ok"], facts["failed"]) == (456, 24)
    assert set(facts["errors"].values()) == {8}


def test_an_outage_costs_a_pool_nothing_but_time(tmp_path: Path) -> None:
    server = Server()

    def behave(asked: Asked) -> Reaction:
        away = asked.number >= 100 and asked.at - server.asked[100].at < 2
        return Reaction(error("no healthy upstream"), 503) if away else Reaction(completion(), delay=0.005)

    server.behave = behave
    with server:
        mine = settings(server, backend={"timeout": 60, "tries": 2})
        facts = run(mine, pool=pool_of(300, tmp_path), out=tmp_path / "out").facts
    assert facts["ok"] == 300


def _number(asked: Asked) -> int:
    return int(asked.prompt.rsplit("What is ", 1)[1].split("?")[0])


@pytest.mark.parametrize("bad", [3, 20])
@pytest.mark.parametrize("last", [True, False])
def test_the_last_samples_that_a_service_fails_at_are_set_aside_without_a_wait(
    bad: int, last: bool, tmp_path: Path
) -> None:
    """Only requests that were answered before can tell: what is sent for that is paid, and counted."""
    failing = set(range(100 - bad, 100)) if last else set(range(0, 100, 100 // bad)[:bad])
    price = {"input": 1_000_000, "output": 0}
    paid = 0

    def behave(asked: Asked) -> Reaction:
        nonlocal paid
        if _number(asked) in failing:
            return Reaction(error("overloaded"), 503)
        paid += 1
        return Reaction(completion(prompt_tokens=1, tokens=0))

    start = time.monotonic()
    with Server(behave) as server:
        mine = settings(server, price=price, max_failure_share=0.3, backend={"patience": 600, "timeout": 30})
        facts = run(mine, pool=pool_of(100, tmp_path), out=tmp_path / "out").facts
    assert time.monotonic() - start < 60
    assert (facts["ok"], facts["failed"], facts["errors"]) == (100 - bad, bad, {"failed: server error": bad})
    assert facts["cost"] == facts["prompt_tokens"] == paid
    assert paid <= 100 - bad + 5
    errors = [row["error"] for row in Artifact.open(tmp_path / "out").table().to_pylist() if row["status"] != "ok"]
    assert all("503 overloaded" in error for error in errors)


def test_an_outage_when_a_few_samples_are_left_is_waited_for(tmp_path: Path) -> None:
    """Longer than all tries of a request take."""
    began: list[float] = []

    def behave(asked: Asked) -> Reaction:
        if len({_number(one) for one in server.asked}) < 98 and not began:
            return Reaction(completion())
        began.append(time.monotonic())
        return Reaction(error("down"), 503) if began[-1] - began[0] < 8 else Reaction(completion())

    with Server(behave) as server:
        mine = settings(server, max_failure_share=0.5, backend={"tries": 3, "concurrency": 8, "timeout": 30})
        facts = run(mine, pool=pool_of(100, tmp_path), out=tmp_path / "out").facts
    assert (facts["ok"], facts["failed"]) == (100, 0)


@pytest.mark.parametrize(("first", "count", "concurrency"), [(20, 40, 4), (30, 12, 4), (20, 60, 64)])
def test_a_block_of_samples_that_a_service_fails_at_does_not_keep_others_from_being_asked(
    first: int, count: int, concurrency: int, tmp_path: Path
) -> None:
    def behave(asked: Asked) -> Reaction:
        if first <= _number(asked) < first + count:
            return Reaction(error("boom"), 500)
        return Reaction(completion(), delay=0.01)

    with Server(behave) as server:
        backend = {"patience": 6, "tries": 3, "timeout": 3, "concurrency": concurrency}
        mine = settings(server, max_failure_share=0.9, backend=backend)
        facts = run(mine, pool=pool_of(100, tmp_path), out=tmp_path / "out").facts
    assert (facts["ok"], facts["failed"]) == (100 - count, count)


@pytest.mark.parametrize("patience", [6, 8])
def test_an_outage_at_the_end_that_is_shorter_than_the_patience_costs_no_sample(patience: int, tmp_path: Path) -> None:
    began: list[float] = []

    def behave(asked: Asked) -> Reaction:
        if asked.number < 34:
            return Reaction(completion())
        began.append(time.monotonic())
        return Reaction(error("down"), 503) if began[-1] - began[0] < 5 else Reaction(completion())

    with Server(behave) as server:
        backend = {"concurrency": 8, "timeout": 3, "patience": patience}
        mine = settings(server, max_failure_share=0.9, backend=backend)
        facts = run(mine, pool=pool_of(40, tmp_path), out=tmp_path / "out").facts
    assert (facts["ok"], facts["failed"]) == (40, 0)


def test_too_many_failures_stop_the_run_and_keep_what_was_paid(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with Server(lambda asked: Reaction(completion("") if asked.number % 2 else completion())) as server:
        mine = settings(server, store, max_attempts=1, backend={"concurrency": 4})
        with pytest.raises(ModelError, match=r"unparsable +empty answer"):
            run(mine, pool=pool_of(400, tmp_path), out=tmp_path / "out")
    assert len(server.asked) < 120
    assert len(stored(store)) == len(server.asked)


@pytest.mark.parametrize("concurrency", [4, 64, 512])
def test_a_rater_that_is_never_understood_is_paid_for_a_hundred_answers(
    concurrency: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And another run does not pay for as many again, and says what it does."""
    store, pool = tmp_path / "store", pool_of(1200, tmp_path)
    with Server(lambda asked: Reaction(completion("Overall rating: 8/10 \x1b[31m"), delay=0.01)) as server:
        mine = settings(server, store, backend={"concurrency": concurrency, "timeout": 60})
        with pytest.raises(UnreadableError) as raised:
            run(mine, pool=pool, out=tmp_path / "out")
        assert r"8/10 \x1b[31m" in str(raised.value)
        assert len(server.asked) == len(stored(store)) == 100
        assert not [one for one in caplog.records if one.name == "tamis.llm.first"]
        with pytest.raises(UnreadableError):
            run(mine, pool=pool, out=tmp_path / "out")
        assert len(server.asked) == 110
        assert [one.levelname for one in caplog.records if one.name == "tamis.llm.first"] == ["WARNING"]
        server.behave = lambda asked: Reaction(completion())  # whoever runs the service has mended it
        assert run(mine, pool=pool, out=tmp_path / "out").facts["ok"] == 1200


def test_the_money_budget_is_never_exceeded_and_holds_over_runs(tmp_path: Path) -> None:
    store, pool = tmp_path / "store", pool_of(300, tmp_path)
    price = {"input": 1000.0, "output": 1000.0}  # a sample of 130 tokens costs 0.13
    with Server(lambda asked: Reaction(completion(), delay=0.01)) as server:
        mine = settings(server, store, price=price, max_cost=13.0, backend={"concurrency": 8, "timeout": 60})
        for _ in range(2):
            with pytest.raises(ModelError, match=r"allowed: 13.0 \(max_cost\)"):
                run(mine, pool=pool, out=tmp_path / "out")
            assert 30 <= len(server.asked) <= 100
        assert len(stored(store)) == len(server.asked)
        richer = mine.model_copy(update={"max_cost": 40.0})
        manifest = run(richer, pool=pool, out=tmp_path / "out")
    assert len(server.asked) == 300
    assert manifest.facts["cost"] == pytest.approx(39.0)


def spent_at(server: Server) -> float:
    """What the server's answers cost at 1 per 1,000 tokens: the requests' words, and 30 tokens for the answer."""
    return sum(len(asked.prompt.split()) + 30 for asked in server.asked) / 1000


@pytest.mark.parametrize("tokens", [3_000_000_000, 2**31, 2**63, 10**30, -1, 1.5, "30", None])
def test_a_count_of_tokens_that_is_none_spoils_no_store(tmp_path: Path, tokens: Any) -> None:
    odd = completion()
    odd["usage"]["prompt_tokens"] = tokens
    with Server(lambda asked: Reaction(odd if asked.number == 3 else completion())) as server:
        made = settings(server, tmp_path / "store")
        run(made, pool=pool_of(10, tmp_path), out=tmp_path / "out")
        run(made, pool=tmp_path / "pool", out=tmp_path / "again")
    assert len(server.asked) == 10
    table = Artifact.open(tmp_path / "again", "ratings").table(["status", "prompt_tokens"])
    assert table["status"].to_pylist() == ["ok"] * 10
    assert all(0 < count < 10_000 for count in table["prompt_tokens"].to_pylist())


def test_a_body_that_nests_deeper_than_can_be_read_is_a_fault_of_one_request(tmp_path: Path) -> None:
    bodies = {0: b"[" * 100_000, 1: b'{"choices":' + b"[" * 100_000, 2: json.dumps(completion("[" * 100_000)).encode()}
    with Server(lambda asked: Reaction(bodies.get(asked.number, completion()))) as server:
        run(settings(server, tmp_path / "store"), pool=pool_of(10, tmp_path), out=tmp_path / "out")
    statuses = Artifact.open(tmp_path / "out", "ratings").table(["status"])["status"].to_pylist()
    assert statuses == ["ok"] * 10
    assert len(server.asked) == 13


@pytest.mark.parametrize("usage", [True, False])
@pytest.mark.parametrize("parses", [True, False])
def test_money_holds_for_samples_of_any_length_for_attempts_and_without_usage(
    usage: bool, parses: bool, tmp_path: Path
) -> None:
    """Each sample is as long as ten before it; half of a sample's attempts may be in an earlier run."""

    def behave(asked: Asked) -> Reaction:
        understood = parses or "What is 0?" in asked.prompt
        body = completion(GOOD if understood else "x " * 30, prompt_tokens=len(asked.prompt.split()))
        if not usage:
            del body["usage"]
        return Reaction(body, delay=0.005)

    texts = [conversation(f"What is {n}?", "word " * (10 if n % 10 else 400)) for n in range(200)]
    pool, store = make_pool(tmp_path / "pool", texts), tmp_path / "store"
    price = {"input": 1000.0, "output": 1000.0}
    with Server(behave) as server:
        for most in (15.0, 30.0):
            mine = settings(
                server, store, price=price, max_cost=most, max_failure_share=1.0,
                backend={"concurrency": 16, "timeout": 60},
            )  # fmt: skip
            with pytest.raises(SpentError, match=r"cost \d+\.\d+"):
                run(mine, pool=pool, out=tmp_path / "out")
            assert (0.5 if usage else 0.3) * most < spent_at(server) <= most
        rest = mine.model_copy(update={"max_cost": None})
        manifest = run(rest, pool=pool, out=tmp_path / "out")
    assert len(server.asked) == (200 if parses else 598)
    if usage:
        assert manifest.facts["cost"] == pytest.approx(spent_at(server))
    else:  # prompts by bytes, answers as long as they may be
        assert 1 < manifest.facts["cost"] / spent_at(server) < 3
        assert manifest.facts["answers_without_usage"] > 0


def test_estimates_that_are_too_high_do_not_end_a_run_that_can_be_paid_for(tmp_path: Path) -> None:
    """By its size a sample costs two and a half times as much as in truth; far more are under way than would fit."""
    price = {"input": 1000.0, "output": 1000.0}
    with Server(lambda asked: Reaction(completion(), delay=0.02)) as server:
        mine = settings(server, price=price, max_cost=13.0, backend={"concurrency": 64, "timeout": 60})
        manifest = run(mine, pool=pool_of(98, tmp_path), out=tmp_path / "out")
    assert manifest.facts["cost"] == pytest.approx(12.74)
    assert len(server.asked) == 98


def test_what_an_earlier_run_paid_counts_before_the_first_question(tmp_path: Path) -> None:
    """The stored samples stand at the end of the second pool: they would be read last."""
    store, texts = tmp_path / "store", [conversation(f"What is {n}?", "A number.") for n in range(200)]
    first = make_pool(tmp_path / "first", texts[100:])
    whole = make_pool(tmp_path / "whole", texts)
    with Server(lambda asked: Reaction(completion())) as server:
        price = {"input": 1000.0, "output": 1000.0}
        mine = settings(server, store, price=price, max_cost=13.0, backend={"concurrency": 8})
        run(mine.model_copy(update={"max_cost": 20.0}), pool=first, out=tmp_path / "one")
        with pytest.raises(ModelError, match=r"100 of 200 samples are rated and cost 13\.0"):
            run(mine, pool=whole, out=tmp_path / "two")
    assert len(server.asked) == 100


def test_the_plan_projects_tokens_and_money_and_asks_nothing(tmp_path: Path) -> None:
    with Server() as server:
        mine = settings(server, price={"input": 10.0, "output": 0.0})
        seen = plan(mine, pool=pool_of(20, tmp_path))
    assert not server.asked
    assert (seen.samples, seen.stored, seen.completion_tokens) == (20, 0, 640)
    assert seen.cost == pytest.approx(seen.prompt_tokens / 100_000)
    assert "cost:" in str(seen)


def test_a_dead_key_stops_before_the_pool_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(lambda asked: Reaction(error("Incorrect API key"), 401)) as server:
        with pytest.raises(ModelError, match="unauthorised"):
            run(settings(server), pool=pool_of(200, tmp_path), out=tmp_path / "out")
        assert len(server.asked) < 40
        monkeypatch.delenv("NO_SUCH_KEY", raising=False)
        with pytest.raises(SettingsError, match="NO_SUCH_KEY"):
            run(settings(server, backend={"api_key_env": "NO_SUCH_KEY"}), pool=tmp_path / "pool", out=tmp_path / "out")


@pytest.mark.parametrize("samples", [3, 60])
def test_a_service_that_gives_no_logprobs_is_told_how_to_be_asked(tmp_path: Path, samples: int) -> None:
    said = error("You are not allowed to request logprobs from this model")
    with Server(lambda asked: Reaction(said, 403)) as server, pytest.raises(ModelError) as refused:
        run(settings(server), pool=pool_of(samples, tmp_path), out=tmp_path / "out")
    assert "logprobs: false" in str(refused.value)


def test_moderation_of_one_sample_is_a_refusal_and_final(tmp_path: Path) -> None:
    def behave(asked: Asked) -> Reaction:
        moderated = "What is 3?" in asked.prompt
        return (
            Reaction(error("Content Exists Risk", "invalid_request_error"), 400)
            if moderated
            else Reaction(completion())
        )

    pool = pool_of(30, tmp_path)
    with Server(behave) as server:
        mine = settings(server, tmp_path / "store")
        facts = run(mine, pool=pool, out=tmp_path / "out").facts
        assert (facts["ok"], facts["refused"], len(server.asked)) == (29, 1, 30)
        run(mine.model_copy(update={"max_failure_share": 0.5}), pool=pool, out=tmp_path / "again")
        assert len(server.asked) == 30


def test_the_paper_s_service_is_ready_by_name() -> None:
    mine = parse_settings(RatingSettings, {"rater": "gpt-4o-mini"}, where="here")
    assert isinstance(mine.backend, OpenAISettings)
    assert (mine.backend.model, mine.backend.max_new_tokens, mine.max_attempts) == ("gpt-4o-mini", 128, 3)
    assert mine.backend.api_key_env == "OPENAI_API_KEY"


@pytest.mark.parametrize("key", ["sk-one\nsk-two", "sk one", "sk-ключ"])
def test_what_cannot_be_a_key_is_refused_without_being_shown(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", key)
    with Server(lambda asked: Reaction(completion())) as server, pytest.raises(SettingsError) as refused:
        run(settings(server, backend={"api_key_env": "SOME_KEY"}), pool=pool_of(2, tmp_path), out=tmp_path / "out")
    assert "SOME_KEY" in str(refused.value)
    assert key[:4] not in str(refused.value)


def test_an_address_with_a_password_is_refused() -> None:
    backend = {"kind": "openai", "model": "m", "base_url": "http://me:secret@host/v1"}
    with pytest.raises(SettingsError, match="api_key_env"):
        parse_settings(RatingSettings, {"name": "mini", "backend": backend}, where="here")


def test_half_a_surrogate_pair_in_a_refusal_spoils_no_other_rating(tmp_path: Path) -> None:
    def reaction(asked: Asked) -> Reaction:
        return Reaction(completion("", refusal="No \ud83d") if b"What is 3?" in asked.content else completion())

    with Server(reaction) as server:
        run(settings(server, tmp_path / "store"), pool=pool_of(20, tmp_path), out=tmp_path / "out")
    kept = stored(tmp_path / "store")
    assert len(kept) == 20
    assert [one["error"] for one in kept if one["status"] == "refused"] == ["refusal: No ?"]
