"""The judging stage with answers from files and from a service, judged by a service on a real socket."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tamis.cli import main
from tamis.core.artifacts import Artifact
from tamis.core.errors import ModelError, SettingsError
from tamis.core.families import family_of, of_one_family
from tamis.core.tables import JUDGEMENT
from tamis.judging.stage import plan, run
from tamis.llm.budget import SpentError
from tests.conftest import ROOT
from tests.llm_server import Asked, Reaction, Server, Till, completion, error
from tests.unit.judging.matches import by_number, given, judge_by, number_in, settings, shown

pytest.importorskip("openai")
# Ours win A and B, lose C, tie D; the answers to E are equal.
PAIRS = {
    "A?": ("ours 9", "theirs 2"),
    "B?": ("ours 5", "theirs 4"),
    "C?": ("ours 1", "theirs 3"),
    "D?": ("ours 7", "theirs 7"),
    "E?": ("the same 6", "the same 6"),
}


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tamis.llm.client._FIRST_WAIT", 0.02)


def rows_of(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = Artifact.open(out, "judgement").table().to_pylist()
    return rows


def test_every_prompt_is_judged_in_both_orders_and_equal_answers_are_a_tie_unasked(tmp_path: Path) -> None:
    with Server(judge_by(by_number)) as server:
        manifest = run(settings(tmp_path, server, PAIRS), out=tmp_path / "out")
    assert len(server.asked) == 8
    facts = manifest.facts
    assert (manifest.kind, manifest.name, manifest.rows) == ("judgement", "ours", 10)
    assert (facts["prompts"], facts["judged"], facts["not_judged"], facts["identical"]) == (5, 5, 0, 1)
    assert (facts["win"], facts["tie"], facts["lose"], facts["net"]) == (0.4, 0.4, 0.2, 0.2)
    assert (facts["flips"], facts["first_preferred"]) == (0, 0.5)
    assert facts["sets"]["set"]["n"] == 5
    assert all(low <= facts[name] <= high for name, (low, high) in facts["intervals"].items())
    assert Artifact.open(tmp_path / "out").table().schema.equals(JUDGEMENT)
    rows = rows_of(tmp_path / "out")
    seen = [(row["prompt"], row["order"], row["verdict"], row["model_score"], row["against_score"]) for row in rows]
    assert seen[:2] == [("A?", 1, "model", 9, 2), ("A?", 2, "model", 9, 2)]
    assert seen[4:6] == [("C?", 1, "against", 1, 3), ("C?", 2, "against", 1, 3)]
    assert seen[8:] == [("E?", 1, "tie", None, None), ("E?", 2, "tie", None, None)]
    assert [row["model_length"] for row in rows[::2]] == [6, 6, 6, 6, 10]


def test_swapping_the_contestants_mirrors_the_result_and_asks_nothing_again(tmp_path: Path) -> None:
    def first_is_better(question: str, first: str, second: str) -> tuple[int, int]:
        return (8, 3) if question == "B?" else by_number(question, first, second)

    with Server(judge_by(first_is_better)) as server:
        mine = settings(tmp_path, server, PAIRS, store=str(tmp_path / "store"))
        one = run(mine, out=tmp_path / "one").facts
        swapped = mine.model_copy(update={"model": mine.against, "against": mine.model})
        other = run(swapped, out=tmp_path / "other").facts
    assert (one["win"], one["tie"], one["lose"], one["flips"]) == (0.2, 0.6, 0.2, 0.2)
    assert (one["win"], one["tie"], one["net"]) == (other["lose"], other["tie"], -other["net"])
    assert one["intervals"]["win"] == pytest.approx(other["intervals"]["lose"])
    assert one["first_preferred"] == other["first_preferred"]
    assert (len(server.asked), other["reused_verdicts"], other["asked"]) == (8, 8, 0)


def test_what_cannot_be_judged_is_counted_with_its_reason_and_is_in_no_share(tmp_path: Path) -> None:
    pairs = {f"{name}?": (f"ours {number}", "theirs 5") for number, name in enumerate("ABCDEF", 5)} | {
        "G?": ("ours 1", "theirs 5")
    }
    mended = False

    def behave(asked: Asked) -> Reaction:
        question, first, _ = shown(asked) or ("", "", "")
        if not mended:
            if question == "A?":
                return Reaction(completion("Answer 1 is better."))
            if question == "B?" and first.startswith("ours"):
                return Reaction(completion("", refusal="I will not."))
            if question == "C?":
                return Reaction(error("boom"), 500)
            if question == "D?":
                return Reaction(error("maximum context length is 10", "context_length_exceeded"), 400)
            if question == "E?":
                return Reaction(completion('{"Answer 1": 11, "Answer 2": 3}'))
        return judge_by(by_number)(asked)

    with Server(behave) as server:
        own = {"store": str(tmp_path / "store"), "backend": {"tries": 2}, "judge": {"max_attempts": 2}}
        with pytest.raises(ModelError, match=r"\d of 14 comparisons got no verdict\n +\d+  \w+ "):
            run(settings(tmp_path, server, pairs, **own), out=tmp_path / "out")
        assert not (tmp_path / "out").exists()
        tolerant = settings(tmp_path, server, pairs, **own, max_failure_share=0.9)
        facts = run(tolerant, out=tmp_path / "out").facts
        assert (facts["prompts"], facts["judged"], facts["not_judged"], facts["n"]) == (7, 2, 5, 2)
        assert facts["reasons"] == {
            "unparsable: not a JSON object": 1,
            "refused: refusal": 1,
            "failed: server error": 1,
            "too_long: too long": 1,
            "unparsable: out of range": 1,
        }
        assert (facts["win"], facts["tie"], facts["lose"]) == (0.5, 0, 0.5)
        lost = [row for row in rows_of(tmp_path / "out") if row["status"] != "ok"]
        assert all(row["verdict"] is None and row["error"] for row in lost)
        assert len(rows_of(tmp_path / "out")) == 14

        mended, before = (
            True,
            len(server.asked),
        )  # a later run asks again what failed for technical reasons, or was too long
        again = run(tolerant.model_copy(update={"seed": 1}), out=tmp_path / "again").facts
    assert (again["judged"], len(server.asked) - before) == (4, 4)


def test_a_contestant_without_an_answer_is_said_so_and_is_not_judged(tmp_path: Path) -> None:
    with Server(judge_by(by_number)) as server:
        theirs = {prompt: other for prompt, (_, other) in PAIRS.items() if prompt != "A?"}
        short = given(tmp_path, "others", theirs)
        with pytest.raises(ModelError, match=r"1 of 5 prompts could not be judged\n +1  no answer of others: failed"):
            run(settings(tmp_path, server, PAIRS, against=short), out=tmp_path / "out")
        tolerant = settings(tmp_path, server, PAIRS, against=short, max_failure_share=0.2)
        facts = run(tolerant, out=tmp_path / "out").facts
    assert (facts["judged"], facts["reasons"]) == (4, {"no answer of others: failed: no answer in the file": 1})
    rows = rows_of(tmp_path / "out")
    assert [(row["status"], row["against_answer"], row["model_answer"]) for row in rows[:2]] == [
        ("no_answer", None, "ours 9")
    ] * 2


def test_a_service_answers_for_a_contestant_and_its_answers_are_kept(tmp_path: Path) -> None:
    def behave(asked: Asked) -> Reaction:
        if asked.prompt == "A?":
            return Reaction(completion("I'm sorry, I cannot. 9"))  # its answer, which is to be judged
        if asked.prompt == "B?":
            return Reaction(completion("I go on and on 1", finish="length"))
        if asked.prompt == "C?":
            return Reaction(error("filtered", "content_filter"), 400)
        return judge_by(by_number)(asked) if shown(asked) else Reaction(completion("theirs 4"))

    with Server(behave) as server:
        service = {
            "kind": "service", "model": "gpt-x", "base_url": server.url, "api_key_env": None,
            "price": {"input": 1000, "output": 1000},
        }  # fmt: skip
        own: dict[str, Any] = {"store": str(tmp_path / "store"), "max_failure_share": 0.2}
        own["answers"] = {"temperature": 0.7, "max_new_tokens": 50}
        facts = run(settings(tmp_path, server, PAIRS, model=service, **own), out=tmp_path / "out").facts
        asked = [one for one in server.asked if shown(one) is None]
        assert (len(asked), facts["judged"], facts["model"]["name"], facts["cut"]) == (5, 4, "gpt-x", [1, 0])
        body = asked[0].body
        assert (body["temperature"], body["max_completion_tokens"]) == (0.7, 50)
        assert body["messages"] == [{"role": "user", "content": "A?"}]
        assert "seed" in body
        assert "response_format" not in body
        assert facts["reasons"] == {"no answer of gpt-x: refused: content filter": 1}
        assert facts["cost"] == pytest.approx(4 * 0.13)
        before = len(server.asked)
        fresh = settings(tmp_path, server, PAIRS, model=service, **own, seed=7)
        again = run(fresh, out=tmp_path / "again").facts
        assert (len(server.asked), again["reused_answers"]) == (before, 5)


EMPTY: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": (completion(""), "failed: no answer"),
    "null": (completion(None), "failed: no answer"),
    "white space": (completion(" \n"), "failed: no answer"),
    "no choice": (completion() | {"choices": []}, "failed: no answer"),
    "thoughts apart": (completion(None, reasoning_content="Let me think."), "failed: no answer"),
    "cut in thoughts apart": (
        completion(None, finish="length", reasoning="Let me"),
        "failed: thoughts took all tokens",
    ),
    "cut in thoughts": (completion("<think>Let me", finish="length"), "failed: thoughts took all tokens"),
    "thoughts only": (completion("<think>Let me think.</think>"), "failed: no answer"),
    "cut at once": (completion("", finish="length"), "failed: no answer"),
    "not understood": (completion({"answer": "ours 9"}), "failed: not understood"),
    "moderated": (completion("", finish="content_filter"), "refused: content filter"),
    "moderated half-way": (completion("ours 9, but", finish="content_filter"), "refused: content filter"),
}


@pytest.mark.parametrize("empty", EMPTY)
def test_a_service_s_empty_answer_is_none_is_in_no_share_and_is_asked_for_again(empty: str, tmp_path: Path) -> None:
    body, reason = EMPTY[empty]
    mended = False

    def behave(asked: Asked) -> Reaction:
        if shown(asked) is not None:
            return judge_by(by_number)(asked)
        return Reaction(completion("ours 7") if mended or asked.prompt != "A?" else body)

    with Server(behave) as server:
        service = {
            "kind": "service", "model": "gpt-x", "base_url": server.url, "api_key_env": None,
            "price": {"input": 1000, "output": 1000},
        }  # fmt: skip
        own: dict[str, Any] = {"store": str(tmp_path / "store"), "max_failure_share": 0.2, "model": service}
        facts = run(settings(tmp_path, server, PAIRS, **own), out=tmp_path / "out").facts
        assert (facts["n"], facts["not_judged"], facts["reasons"]) == (4, 1, {f"no answer of gpt-x: {reason}": 1})
        assert (facts["win"], facts["tie"], facts["lose"]) == (0.75, 0.25, 0)  # 7 against 4, 3, 7 and 6
        assert facts["cost"] == pytest.approx(5 * 0.13)
        assert not [one for one in server.asked if shown(one) is not None and "A?" in one.prompt]
        mended, before = True, len(server.asked)
        again = run(settings(tmp_path, server, PAIRS, **own, seed=7), out=tmp_path / "again").facts
        asked = [one for one in server.asked[before:] if shown(one) is None]
    if reason.startswith("refused"):
        assert (again["n"], len(asked)) == (4, 0)
    else:
        assert (again["n"], [one.prompt for one in asked]) == (5, ["A?"])
        assert again["cost"] == pytest.approx(6 * 0.13)  # what the empty one took counts


def test_the_judge_sees_no_thoughts_of_a_contestant(tmp_path: Path) -> None:
    def behave(asked: Asked) -> Reaction:
        return judge_by(by_number)(asked) if shown(asked) else Reaction(completion("<think>Say 1?</think>\n\nours 7"))

    with Server(behave) as server:
        service = {"kind": "service", "model": "qwen3-8b", "base_url": server.url, "api_key_env": None}
        mine = settings(tmp_path, server, PAIRS, model=service, answers={"max_new_tokens": 50})
        facts = run(mine, out=tmp_path / "out").facts
        asked = next(one for one in server.asked if shown(one) is None)
    assert {row["model_answer"] for row in rows_of(tmp_path / "out")} == {"ours 7"}
    assert facts["thoughts_left_out"] == [5, 0]
    assert asked.body["max_completion_tokens"] == 50 + 4096


def test_a_judge_that_thinks_or_dresses_its_verdict_is_understood_and_counted(tmp_path: Path) -> None:
    def behave(asked: Asked) -> Reaction:
        body = judge_by(by_number)(asked).body
        message = body["choices"][0]["message"]
        message["content"] = f"<think>Hm.</think>```json\n{message['content'].replace('Answer ', 'answer_')}\n```"
        return Reaction(body)

    with Server(behave) as server:
        facts = run(settings(tmp_path, server, PAIRS), out=tmp_path / "out").facts
    assert (facts["win"], facts["tie"], facts["lose"]) == (0.4, 0.4, 0.2)
    assert facts["lenient"] == {"code fence": 8, "key spelling": 8, "thoughts": 8}


def test_a_verdict_that_was_not_understood_is_read_by_a_later_version_without_asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def behave(asked: Asked) -> Reaction:
        body = judge_by(by_number)(asked).body
        message = body["choices"][0]["message"]
        message["content"] = f"My scores: {message['content']}"
        return Reaction(body)

    with Server(behave) as server:
        own: dict[str, Any] = {"store": str(tmp_path / "store"), "max_failure_share": 0.9, "judge": {"max_attempts": 1}}
        with monkeypatch.context() as earlier:
            earlier.setattr("tamis.llm.forms._objects", lambda text: ([], text, []))
            with pytest.raises(ModelError):
                run(settings(tmp_path, server, PAIRS, **own), out=tmp_path / "out")
        before = len(server.asked)
        assert plan(settings(tmp_path, server, PAIRS, **own)).judged == before
        facts = run(settings(tmp_path, server, PAIRS, **own), out=tmp_path / "out").facts
    assert (facts["n"], len(server.asked)) == (5, 8)
    assert facts["reused_verdicts"] == before


@pytest.mark.parametrize(
    ("verdicts", "warned"),
    [
        ((9, 1), "prefers that position"),
        ((1, 9), "prefers that position"),
        ((5, 5), "found no winner"),
        (None, ""),
    ],
)
def test_a_judge_that_does_not_tell_answers_apart_is_warned_of(
    verdicts: tuple[int, int] | None, warned: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = {f"{number}?": ("ours 3", f"theirs {2 + 3 * (number % 2)}") for number in range(20)}
    with Server(judge_by(by_number if verdicts is None else lambda *_: verdicts)) as server:
        facts = run(settings(tmp_path, server, pairs), out=tmp_path / "out").facts
    assert facts["tie"] == (0 if verdicts is None else 1)
    assert len(facts["warnings"]) == {"prefers that position": 2, "found no winner": 1, "": 0}[warned]
    assert (warned in caplog.text) if warned else not [one for one in caplog.records if one.levelname == "WARNING"]
    if warned == "prefers that position":
        assert "in 100.0% of the pairs" in facts["warnings"][1]


def test_services_that_give_their_models_one_name_are_two_contestants(tmp_path: Path) -> None:
    def answering(words: str) -> Server:
        return Server(lambda asked: Reaction(completion(f"{words} {len(asked.prompt)}")))

    with Server(judge_by(by_number)) as judge, answering("base 1") as base, answering("tuned 2") as tuned:
        service = {"kind": "service", "model": "default", "api_key_env": None}
        mine = settings(
            tmp_path, judge, PAIRS, store=str(tmp_path / "store"),
            model=service | {"name": "tuned", "base_url": tuned.url},
            against=service | {"name": "base", "base_url": base.url},
        )  # fmt: skip
        run(mine, out=tmp_path / "out")
        assert (len(base.asked), len(tuned.asked)) == (5, 5)
    answers = {(row["model_answer"][:7], row["against_answer"][:6]) for row in rows_of(tmp_path / "out")}
    assert answers == {("tuned 2", "base 1")}


def test_money_stops_the_judge_before_it_is_spent_and_what_was_paid_is_kept(tmp_path: Path) -> None:
    pairs = {f"{number}?": ("ours 3", f"theirs {number % 10 + 1}") for number in range(40)}
    price = {"input": 100.0, "output": 1000.0}  # 0.04 a comparison, by what the server reports
    with Server(judge_by(by_number)) as server:
        own: dict[str, Any] = {"store": str(tmp_path / "store"), "price": price, "backend": {"concurrency": 2}}
        poor = settings(tmp_path, server, pairs, **own, max_cost=1.0)
        with pytest.raises(SpentError, match=r"cost [01]\.\d+"):
            run(poor, out=tmp_path / "out")
        paid = len(server.asked)
        assert 10 <= paid <= 25
        seen = plan(settings(tmp_path, server, pairs, **own))
        assert (seen.prompts, seen.comparisons, seen.judged) == (40, 80, paid)
        manifest = run(settings(tmp_path, server, pairs, **own, max_cost=10.0), out=tmp_path / "out")
    assert (len(server.asked), manifest.facts["reused_verdicts"]) == (80, paid)
    assert manifest.facts["cost"] == pytest.approx(0.04 * 80)


def test_without_a_store_raising_limits_asks_nothing_twice(tmp_path: Path) -> None:
    """Of answers and verdicts, whose tokens are charged alike."""
    pairs = {f"{number}?": ("", "theirs 5") for number in range(60)}
    till = Till(answer=90)

    def behave(asked: Asked) -> Reaction:
        body = till.sell()
        reaction = judge_by(by_number)(asked) if shown(asked) else Reaction(completion("ours 3"))
        return Reaction(reaction.body | {"usage": body["usage"]}, delay=0.005)

    one, at_once = till.price_of(90), {"concurrency": 16}
    with Server(behave) as server:
        service = {"kind": "service", "model": "w", "base_url": server.url, "api_key_env": None, "concurrency": 16}
        own: dict[str, Any] = {"model": service | {"price": till.settings}, "price": till.settings}
        own |= {"answers": {"max_new_tokens": 100}}
        for most in (30 * one, 100 * one, 150 * one):
            with pytest.raises(ModelError) as raised:
                run(settings(tmp_path, server, pairs, **own, backend=at_once, max_cost=most), out=tmp_path / "out")
            assert raised.value.code == "budget"
            assert till.charged <= most + 16 * one  # the promise: at most the price of `concurrency` answers above
        manifest = run(settings(tmp_path, server, pairs, **own, backend=at_once, max_cost=1.0), out=tmp_path / "out")
    assert till.answers == 180
    assert manifest.facts["cost"] == pytest.approx(till.charged)


def test_a_judge_that_is_never_understood_is_paid_for_a_hundred_verdicts(tmp_path: Path) -> None:
    pairs = {f"Question {n}?": (f"a {n}", f"b {n}") for n in range(120)}
    with Server(lambda asked: Reaction(completion("Both are fine."))) as server:
        with pytest.raises(ModelError) as raised:
            run(settings(tmp_path, server, pairs, store=str(tmp_path / "store")), out=tmp_path / "out")
        assert raised.value.code == "unreadable-answers"
        assert len(server.asked) == 100


def test_a_killed_run_goes_on_and_pays_for_nothing_twice(tmp_path: Path) -> None:
    pairs = {f"{number}?": ("", "theirs 5") for number in range(60)}
    code = (
        "import json, sys\n"
        "from tamis.judging.settings import JudgingSettings\n"
        "from tamis.judging.stage import run\n"
        "run(JudgingSettings(**json.loads(sys.argv[1])), out=sys.argv[2])\n"
    )
    delay, within = 0.15, 5.0  # seconds: of an answer; in which it must be durable

    def behave(asked: Asked) -> Reaction:
        reaction = judge_by(by_number)(asked) if shown(asked) else Reaction(completion("ours 3"))
        return Reaction(reaction.body, delay=delay)

    with Server(behave) as server:
        service = {"kind": "service", "model": "w", "base_url": server.url, "api_key_env": None, "concurrency": 4}
        backend = {"concurrency": 4}
        mine = settings(tmp_path, server, pairs, model=service, store=str(tmp_path / "store"), backend=backend)
        command = [sys.executable, "-c", code, mine.model_dump_json(), str(tmp_path / "out")]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(server.asked) < 60 + 100 and process.poll() is None:
            time.sleep(0.01)
        kill = time.monotonic()
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / "out").exists()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    facts = Artifact.open(tmp_path / "out", "judgement").manifest.facts
    assert (facts["judged"], facts["lose"], facts["reused_answers"]) == (60, 1, 60)
    sent: dict[str, list[float]] = defaultdict(list)
    for asked in server.asked:
        sent[asked.prompt].append(asked.at)
    assert len(sent) == 180
    assert all(len(times) <= 2 and kill - times[0] <= delay + within for times in sent.values() if len(times) > 1)


def test_a_dry_run_asks_nobody_and_says_what_there_is_to_do(tmp_path: Path) -> None:
    with Server(judge_by(by_number)) as server:
        service = {"kind": "service", "model": "gpt-x", "base_url": server.url, "api_key_env": None}
        mine = settings(tmp_path, server, PAIRS, model=service, price={"input": 1000, "output": 1000})
        file = tmp_path / "judging.yaml"
        file.write_text(json.dumps(mine.model_dump(mode="json", exclude_unset=True)))
        shown_to_user = CliRunner().invoke(main, ["judge", "--settings", str(file), "--dry-run"])
        assert not server.asked
    assert shown_to_user.exit_code == 0, shown_to_user.output
    assert re.search(r"gpt-x: 0 .*\b5\b", shown_to_user.output)
    assert re.search(r"theirs: 5 .*\b0\b", shown_to_user.output)
    assert "judge's cost" in shown_to_user.output


def test_the_command_judges(tmp_path: Path) -> None:
    with Server(judge_by(by_number)) as server:
        file = tmp_path / "judging.yaml"
        file.write_text(settings(tmp_path, server, PAIRS).model_dump_json(exclude_unset=True))
        done = CliRunner().invoke(main, ["judge", "--settings", str(file), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "judgement: 10 rows" in done.output


def test_each_contestant_is_given_once(tmp_path: Path) -> None:
    mine = settings(tmp_path, None, PAIRS)
    with pytest.raises(SettingsError, match=r"^against: (.|\n)*--against PATH"):
        run(mine.model_copy(update={"against": None}), out=tmp_path / "out")
    with pytest.raises(SettingsError, match=r"^model: "):
        run(mine, model=tmp_path / "some", out=tmp_path / "out")


def test_a_missing_key_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with Server() as server:
        service = {"kind": "service", "model": "w", "base_url": server.url, "api_key_env": None}
        mine = settings(tmp_path, server, PAIRS, model=service, backend={"api_key_env": "NO_SUCH_KEY"})
        with pytest.raises(SettingsError, match="NO_SUCH_KEY"):
            run(mine, out=tmp_path / "out")
        assert not server.asked


def test_a_judge_may_give_a_verdict_instead_of_scores(tmp_path: Path) -> None:
    def behave(asked: Asked) -> Reaction:
        _, first, second = shown(asked) or ("", "", "")
        one, other = number_in(first), number_in(second)
        return Reaction(completion(json.dumps({"Better answer": 0 if one == other else 1 if one > other else 2})))

    with Server(behave) as server:
        mine = settings(tmp_path, server, PAIRS, judge={"prompt": "verdict-v1"})
        facts = run(mine, out=tmp_path / "out").facts
    schema = server.asked[0].body["response_format"]["json_schema"]["schema"]
    assert schema["properties"] == {"Better answer": {"type": "integer", "enum": [0, 1, 2]}}
    assert (facts["win"], facts["tie"], facts["lose"]) == (0.4, 0.4, 0.2)
    assert {row["model_score"] for row in rows_of(tmp_path / "out")} == {None}


def test_a_judge_of_a_contestants_family_is_warned_of(tmp_path: Path) -> None:
    with Server(judge_by(by_number)) as server:
        theirs = given(tmp_path, "lima", {prompt: other for prompt, (_, other) in PAIRS.items()})
        mine = settings(
            tmp_path, server, PAIRS, against=theirs | {"written_by": "GAIR/lima-7b"},
            backend={"model": "meta-llama/Llama-3.1-70B-Instruct"},
        )  # fmt: skip
        facts = run(mine, out=tmp_path / "out").facts
    (warning,) = facts["warnings"]
    assert "Llama-3.1-70B-Instruct and lima belong to one model family (Llama)" in warning


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("gpt-4o-mini", "OpenAI"),
        ("o3-mini", "OpenAI"),
        ("meta-llama/Llama-3.1-8B", "Llama"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "Mistral"),
        ("models/Ministral-8B-Instruct-2410", "Mistral"),
        ("mistralai/Mixtral-8x7B-v0.1", "Mistral"),
        ("some/minitral", None),
        ("EleutherAI/gpt-neo-1.3B", "EleutherAI"),
        ("EleutherAI/gpt-neox-20b", "EleutherAI"),
        ("EleutherAI/gpt-j-6b", "EleutherAI"),
        ("openai/gpt-oss-20b", "OpenAI"),
        ("/models/smollm2", "SmolLM"),
        ("Qwen/Qwen3-8B", "Qwen"),
        ("google/gemma-3-4b-it", "Google"),
        ("models/final", None),
    ],
)
def test_families_are_known_by_name(model: str, family: str | None) -> None:
    assert family_of(model) == family
    assert of_one_family(model, model) == family


def test_a_folder_whose_name_says_nothing_is_known_by_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mistral"}')
    assert family_of(str(tmp_path)) == "Mistral"
