"""Long beginnings that texts share are found and left out, and nothing else is."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tamis.embedding.beginnings import Beginnings, find_beginnings

PROMPT = "You are an agent of the shop and have these tools: " + ", ".join(f"tool{i}" for i in range(40)) + ".\n"
LIMIT = 20  # words, of which one is a token here


def found(texts: Sequence[str], sources: Sequence[str] | None = None, limit: int = LIMIT) -> Beginnings:
    pairs = list(zip(sources or ["s"] * len(texts), texts, strict=True))
    return find_beginnings(lambda: pairs, lambda text: len(text.split()), limit)


def tails(count: int, start: int = 0) -> list[str]:
    return [f"Question {i} of its own" for i in range(start, start + count)]


def test_a_beginning_is_left_out_up_to_the_last_whole_word() -> None:
    beginnings = found([PROMPT + tail for tail in tails(4)])
    assert [(entry.samples, entry.characters) for entry in beginnings.found] == [(4, len(PROMPT + "Question "))]
    assert beginnings.rest(PROMPT + "Question 7") == "7"
    assert beginnings.rest(PROMPT + "Questions") == PROMPT + "Questions"
    assert Beginnings.of_facts(beginnings.as_facts()).rest(PROMPT + "Question 7") == "7"


@pytest.mark.parametrize(
    "texts",
    [
        [PROMPT + tail for tail in tails(3)],  # too few samples
        [PROMPT + tail for tail in tails(4)] + tails(40),  # too small a share
        ["You are a helpful assistant. " + tail for tail in tails(50)],  # too short
        ["one two three four five six seven eight " + tail for tail in tails(50)],  # less than half of what is read
        [PROMPT.strip()] * 50,  # the same text: nothing would be left
        tails(50),
    ],
)
def test_nothing_else_is_left_out(texts: list[str]) -> None:
    beginnings = found(texts)
    assert [beginnings.rest(text) for text in texts] == texts


def test_every_source_is_looked_at_by_itself() -> None:
    texts = [PROMPT + tail for tail in tails(5)] + tails(100)
    assert found(texts, ["agents"] * 5 + ["others"] * 100).found[0].samples == 5


def test_several_beginnings_and_those_behind_others_are_found() -> None:
    other = PROMPT.replace("shop", "bank")
    long = "".join(f"Rule {i}: keep it. " for i in range(30))
    texts = [PROMPT + long + tail for tail in tails(40)] + [PROMPT + tail for tail in tails(4, 40)]
    texts += [other + tail for tail in tails(40, 50)]
    beginnings = found(texts)
    rests = [beginnings.rest(text) for text in texts]
    assert len(set(rests)) == len(texts)
    assert max(map(len, rests)) <= len("Question 00 of its own")


def test_a_script_without_spaces_is_cut_where_the_texts_part() -> None:
    prompt = "你是一个有用的助手并且总是遵守以下所有规则" * 20
    texts = [f"{prompt}{tail}" for tail in ("甲问", "乙问", "丙问", "丁问")]
    beginnings = find_beginnings(lambda: [("s", text) for text in texts], len, 100)
    assert [beginnings.rest(text) for text in texts] == ["甲问", "乙问", "丙问", "丁问"]
