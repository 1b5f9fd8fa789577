"""Asking again, counting and giving up, with a scripted rater: faults come at will from no real one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from tamis.core.errors import ModelError
from tamis.llm.asking import ask
from tamis.llm.backend import Answer, Request, Size
from tamis.llm.budget import Words
from tamis.llm.first import FirstAnswers, UnreadableError
from tamis.rating.summary import Summary
from tests.paper_prompt import Rating, Scores, rating_of, write

GOOD = write(Scores(1, 2, 3, 4))
A, B = "a" * 32, "b" * 32


class Scripted:
    """Answers each sample with the next entry of its script; notes what it was asked."""

    identity: Mapping[str, Any] = {"model": "scripted"}
    eager = False

    def __init__(self, script: dict[str, list[str | Answer]], *, deterministic: bool = False) -> None:
        self.script, self.deterministic = script, deterministic
        self.asked: list[list[tuple[str, int]]] = []

    def measure(self, texts: Sequence[str]) -> list[Size]:
        return [Size(len(text)) for text in texts]

    def answer(self, groups: Iterator[Iterable[Request]]) -> Iterator[list[Answer]]:
        for group in groups:
            requests = list(group)
            self.asked.append([(request.id, request.attempt) for request in requests])
            for request in reversed(requests):
                entry = self.script[request.id].pop(0)
                if isinstance(entry, Answer):
                    yield [entry]
                elif entry != "silence":
                    yield [Answer(request.id, entry, prompt_tokens=10, completion_tokens=2)]


def rate(
    backend: Scripted, earlier: Mapping[str, Rating] | None = None, attempts: int = 3
) -> tuple[list[Rating], list[Rating]]:
    kept: list[Rating] = []
    samples = [(sample, f"text of {sample}", (earlier or {}).get(sample)) for sample in backend.script]
    blocks = iter([samples])
    groups = ask(backend, lambda: next(blocks, ()), read=rating_of, max_attempts=attempts, keep=kept.append)
    return [rating for group in groups for rating in group], kept


def test_a_sample_is_asked_again_until_its_answer_parses() -> None:
    backend = Scripted({A: ["hm", "7", GOOD], B: [GOOD]})
    ratings, kept = rate(backend)
    assert backend.asked == [[(A, 1), (B, 1)], [(A, 2)], [(A, 3)]]
    assert [(r.id, r.status, r.attempts, r.overall) for r in ratings] == [(B, "ok", 1, 4), (A, "ok", 3, 4)]
    assert (ratings[1].prompt_tokens, ratings[1].completion_tokens) == (30, 6)  # all attempts were paid
    assert [(r.id, r.status, r.attempts) for r in kept] == [
        (B, "ok", 1),
        (A, "unparsable", 1),
        (A, "unparsable", 2),
        (A, "ok", 3),
    ]


def test_after_the_last_attempt_the_sample_has_no_score_but_a_reason() -> None:
    ratings, _ = rate(Scripted({A: ["", "hm", GOOD.replace("4", "12")]}))
    assert [(r.status, r.overall, r.error, r.attempts) for r in ratings] == [
        ("unparsable", None, "out of range: Overall rating is 12", 3)
    ]


def test_a_rater_that_only_repeats_itself_is_not_asked_again() -> None:
    backend = Scripted({A: ["hm"]}, deterministic=True)
    assert rate(backend)[0][0].attempts == 1


def test_attempts_of_a_killed_run_count() -> None:
    before = Rating(id=A, status="unparsable", error="empty answer", attempts=2, prompt_tokens=20, completion_tokens=4)
    backend = Scripted({A: ["hm"]})
    ratings, _ = rate(backend, {A: before})
    assert backend.asked == [[(A, 3)]]
    assert (ratings[0].attempts, ratings[0].prompt_tokens) == (3, 30)


def test_an_answer_that_was_cut_off_says_so() -> None:
    ratings, _ = rate(Scripted({A: [Answer(A, '{"Rarity": 3, "Comp', cut=True)]}), attempts=1)
    assert (ratings[0].status, ratings[0].error) == ("unparsable", "cut off: not JSON")


def test_blocks_are_asked_for_until_there_are_none_and_once_more_after_a_pause() -> None:
    backend = Scripted({A: [GOOD], B: [GOOD]})
    blocks = iter([[(A, "a", None)], [], [(B, "b", None)], [], []])
    groups = ask(backend, lambda: next(blocks), read=rating_of, max_attempts=3, keep=lambda rating: None)
    assert [rating.id for group in groups for rating in group] == [A, B]


@pytest.mark.parametrize("eager", [True, False])
def test_when_it_is_enough_only_what_is_under_way_already_is_waited_for(eager: bool) -> None:
    backend = Scripted({f"{n:032x}": [GOOD] for n in range(10)})
    backend.eager = eager
    samples = [(sample, "text", None) for sample in backend.script]
    blocks = iter([samples[:5], samples[5:]])
    ratings: list[Rating] = []
    for group in ask(
        backend,
        lambda: next(blocks, ()),
        read=rating_of,
        max_attempts=3,
        keep=lambda r: None,
        enough=lambda found=ratings: bool(found),
    ):
        ratings += group
    assert len(ratings) == (5 if eager else 1)


@pytest.mark.parametrize("eager", [True, False])
def test_what_was_admitted_is_answered_and_nothing_is_asked_after_the_first_refusal(eager: bool) -> None:
    backend = Scripted({f"{n:032x}": [GOOD] for n in range(10)})
    backend.eager = eager
    samples = [(sample, "text", None) for sample in backend.script]
    blocks = iter([samples[:5], samples[5:]])
    refused = samples[7][0]
    groups = ask(
        backend,
        lambda: next(blocks, ()),
        read=rating_of,
        max_attempts=3,
        keep=lambda r: None,
        admit=lambda request: request.id != refused,
    )
    assert sorted(rating.id for group in groups for rating in group) == [sample for sample, _, _ in samples[:7]]


@pytest.mark.parametrize(("problem", "kept"), [("refused", 1), ("too_long", 0), ("failed", 0)])
def test_a_problem_is_a_status_and_what_may_pass_is_not_kept(problem: Any, kept: int) -> None:
    ratings, stored = rate(Scripted({A: [Answer(A, problem=problem, error="the reason: detail")]}))
    assert [(r.status, r.error, r.overall) for r in ratings] == [(problem, "the reason: detail", None)]
    assert len(stored) == kept


WORDS = Words("rater 'x'", "samples", "rating", "rated")


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize(("read", "unread", "most"), [(0, 0, 100), (0, 30, 70), (0, 5000, 10), (1, 5000, None)])
def test_a_model_whose_first_answers_cannot_be_read_is_asked_no_more(
    eager: bool, read: int, unread: int, most: int | None
) -> None:
    """In a block of 500 samples; `most` None: there was one that could be read."""
    backend = Scripted({f"{n:032x}": ["8/10", "\x1b[2J\x07", "<b>"] for n in range(500)})
    backend.eager = eager
    first = FirstAnswers(WORDS, read=read, unread=unread)
    blocks = iter([[(sample, "text", None) for sample in backend.script]])
    kept: list[Rating] = []
    for _ in ask(backend, lambda: next(blocks, ()), read=rating_of, max_attempts=3, keep=kept.append, first=first):
        pass
    assert len(kept) == (1500 if most is None else most)
    if most is None:
        first.check()
        return
    with pytest.raises(UnreadableError) as raised:
        first.check()
    assert raised.value.code == "unreadable-answers"
    assert "'8/10'" in str(raised.value)


def test_the_answers_in_the_error_are_three_and_safe_to_show() -> None:
    first = FirstAnswers(WORDS, read=0, unread=0)
    for text in ["\x1b[2J\u202eevil\x00\n\ud83d", "x" * 5000, "中文", "one too many", *["中文"] * 96]:
        first.count(Answer("a", text), "unparsable", "not JSON")
    with pytest.raises(UnreadableError) as raised:
        first.check()
    words = str(raised.value)
    assert words.replace("\n", "").isprintable()
    assert r"'\x1b[2J\u202eevil\x00\n\ud83d'" in words
    assert "中文" in words
    assert "one too many" not in words
    assert words.count("x" * 300) == 1
    assert "x" * 301 not in words


def test_one_answer_that_can_be_read_is_enough_and_faults_count_for_nothing() -> None:
    first = FirstAnswers(WORDS, read=0, unread=0)
    for number in range(99):
        assert first.allows(99 - number)
        first.count(Answer("a", "hm"), "unparsable", "not JSON")
        first.count(Answer("a", problem="failed"), "failed", "timeout")
    assert first.allows(0)
    assert not first.allows(1)
    first.count(Answer("a", GOOD), "ok", None)
    for _ in range(500):
        first.count(Answer("a", "hm"), "unparsable", "not JSON")
    assert first.allows(5000)
    assert not first.failed


def test_a_rater_that_leaves_a_request_open_is_an_error() -> None:
    with pytest.raises(ModelError, match=f"no answer to 1 samples, the first is {A}"):
        rate(Scripted({A: ["silence"], B: [GOOD]}))


def test_the_expected_score_is_the_mean_of_the_probabilities() -> None:
    shares = (0.0,) * 6 + (0.25, 0.5, 0.25, 0.0)
    ratings, _ = rate(Scripted({A: [Answer(A, GOOD, probabilities=(shares,))]}))
    assert ratings[0].expected == 8.0
    assert ratings[0].overall == 4


def test_the_summary_counts_by_status_and_by_kind_of_error() -> None:
    summary = Summary()
    for number, (overall, error) in enumerate(
        [(7, None), (7, None), (2, None), (None, "not JSON"), (None, "out of range: Rarity is 0"), (None, "not JSON")]
    ):
        status = "ok" if overall else "unparsable"
        summary.add(
            Rating(id=f"{number:032x}", status=status, overall=overall, error=error, attempts=1, prompt_tokens=5)
        )
    facts = summary.facts()
    assert (facts["ok"], facts["unparsable"], facts["failed"], summary.failures) == (3, 3, 0, 3)
    assert facts["errors"] == {"unparsable: not JSON": 2, "unparsable: out of range": 1}
    assert facts["overall_mean"] == pytest.approx(16 / 3, abs=1e-4)
    assert facts["overall_histogram"]["7"] == 2
    assert facts["prompt_tokens"] == 30
    lines = summary.table_of_errors().splitlines()
    assert lines[0].split() == ["2", "unparsable", "not", "JSON", "(sample", f"{3:032x})"]
    assert "out of range: Rarity is 0" in lines[1]
