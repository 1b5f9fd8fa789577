"""Each signal finds planted cases, and leaves ordinary texts alone."""

from __future__ import annotations

from typing import Any

import pytest

from tamis.core.errors import SettingsError
from tamis.core.settings import parse
from tamis.signals.columns import SIGNALS
from tamis.signals.columns.code import code_share
from tamis.signals.columns.endings import placeholder, truncated
from tamis.signals.columns.repetition import repetition
from tamis.signals.conversations import Conversations
from tamis.signals.settings import DescribeSettings
from tests.artifacts import conversation

PROSE = "The Nile flows north through eleven countries, and most of its water comes from the Ethiopian highlands."


def measured(signal: str, *samples: list[Any], tools: list[str | None] | None = None) -> dict[str, list[Any]]:
    return {
        name: list(values)
        for name, values in SIGNALS[signal].measure(Conversations(samples, tools), DescribeSettings()).items()
    }


def answered(*answers: str) -> list[list[Any]]:
    return [conversation("Tell me.", answer) for answer in answers]


def test_names_of_columns_are_distinct() -> None:
    names = [column for signal in SIGNALS.values() for column in signal.columns]
    assert len(names) == len(set(names)) > 15


def test_characters_count_thoughts_apart() -> None:
    plain = conversation("ab", "cdef")
    field = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "cd", "reasoning": "xyzuvw"}]
    tag = conversation("ab", "<think>\nxyzuvw\n</think>\n\ncd")
    found = measured("characters", plain, field, tag)
    assert found["answer_characters"] == [4, 2, 2]
    assert found["thoughts_share"] == [0, 0.75, 0.75]
    assert found["characters"][0] == len("ab\ncdef")


def test_turns_and_tools() -> None:
    calls = [{"id": "1", "name": "f", "arguments": "{}"}, {"id": "2", "name": "g", "arguments": "{}"}]
    sample = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "Sun.", "tool_call_id": "1"},
        {"role": "assistant", "content": "Sunny."},
    ]
    assert measured("turns", sample) == {"messages": [5], "turns": [1]}
    found = measured("tools", sample, conversation("a", "b"), tools=['[{"name": "f"}, {"name": "g"}]', None])
    assert found == {"tools_offered": [2, 0], "tool_calls": [2, 0], "tool_results": [1, 0]}


SENTENCES = {
    "en": PROSE,
    "de": "Der Nil fließt durch elf Länder nach Norden, und das meiste Wasser kommt aus dem Hochland.",
    "fr": "Le Nil traverse onze pays vers le nord et la plus grande partie de ses eaux vient des hauts plateaux.",
    "es": "El Nilo atraviesa once países hacia el norte, y la mayor parte de su agua viene de las tierras altas.",
    "it": "Il Nilo scorre verso nord attraverso undici paesi e gran parte della sua acqua viene dagli altopiani.",
    "pt": "O Nilo corre para o norte por onze países, e a maior parte da sua água vem das terras altas.",
    "nl": "De Nijl stroomt naar het noorden door elf landen, en het meeste water komt uit de hooglanden.",
    "pl": "Nil płynie na północ przez jedenaście krajów, a większość wody pochodzi z wyżyn Etiopii.",
    "ru": "Нил течёт на север через одиннадцать стран, и большая часть воды приходит с нагорья.",
    "tr": "Nil nehri on bir ülkeden geçerek kuzeye akar ve suyunun çoğu yaylalardan gelir.",
    "vi": "Sông Nin chảy về phía bắc qua mười một quốc gia và phần lớn nước đến từ cao nguyên.",
    "zh": "尼罗河向北流经十一个国家，大部分河水来自埃塞俄比亚高原。",
    "ja": "ナイル川は十一の国を北へ流れ、水の多くはエチオピアの高原から来ています。",
    "ko": "나일강은 열한 나라를 지나 북쪽으로 흐르며 물의 대부분은 고원에서 온다.",
    "ar": "يتدفق النيل شمالا عبر إحدى عشرة دولة، ويأتي معظم مياهه من المرتفعات الإثيوبية.",
    "hi": "नील नदी ग्यारह देशों से होकर उत्तर की ओर बहती है और इसका अधिकांश पानी पठार से आता है।",
    "th": "แม่น้ำไนล์ไหลไปทางเหนือผ่านสิบเอ็ดประเทศ และน้ำส่วนใหญ่มาจากที่ราบสูง",
}


@pytest.mark.parametrize("language", SENTENCES)
def test_the_language_is_found(language: str) -> None:
    assert measured("language", conversation(SENTENCES[language], SENTENCES[language]))["language"] == [language]


def test_code_does_not_hide_the_language() -> None:
    code = "```python\nfor name in names:\n    print(name)\n```\n"
    assert measured("language", conversation(SENTENCES["de"], code + SENTENCES["de"]))["language"] == ["de"]


def test_short_texts_and_numbers_have_no_language() -> None:
    found = measured("language", conversation("2 + 2?", "4"), conversation("Hi", "Ok"))
    assert found == {"language": [None, None], "language_probability": [None, None]}


def test_a_loop_of_any_length_is_found() -> None:
    for words in (1, 3, 20):
        loop = " ".join(f"word{i}" for i in range(words)) + " "
        copies = max(12, 4 * words) // words
        repeated, looping = repetition(f"{PROSE} {loop * copies}")
        assert looping == pytest.approx(words * copies / (words * copies + 19), abs=0.02)
        assert repeated > 0.2


def test_a_loop_in_chinese_is_found() -> None:
    assert repetition("尼罗河向北流经十一个国家。" + "我不知道。" * 20)[1] > 0.8


def test_repetition_is_that_of_a_naive_count() -> None:
    text = "one two three four five one two three four six one two three four five seven eight nine"
    words = text.split()
    grams = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    assert repetition(text)[0] == pytest.approx(1 - len(set(grams)) / len(grams))


def test_ordinary_prose_does_not_repeat() -> None:
    assert repetition(PROSE) == (0, 0)
    assert repetition("") == (0, 0)
    assert repetition(f"{PROSE} Rain falls there in summer. {PROSE}")[1] == 0  # twice is no loop


def test_loops_in_thoughts_are_apart_from_the_answer() -> None:
    thoughts = "Wait, let me check that again. " * 10
    sample = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": PROSE, "reasoning": thoughts}]
    found = measured("repetition", sample, *answered(PROSE))
    assert found["loop_share"] == [0, 0]
    assert found["thoughts_loop_share"] == [pytest.approx(1, abs=0.05), None]


REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I cannot provide instructions for that.",
    "As an AI language model, I cannot browse the internet.",
    "Unfortunately, I am unable to open links.",
    "I don't have access to your files.",
    "Es tut mir leid, aber dabei kann ich Ihnen nicht helfen.",
    "Je suis désolé, mais je ne peux pas répondre à cette question.",
    "Lo siento, pero no puedo ayudarte con eso.",
    "抱歉，我无法回答这个问题。",
    "申し訳ありませんが、その質問にはお答えできません。",
]
ANSWERS = [
    PROSE,
    "You cannot divide by zero.",
    "I can help you with that. First, open the file.",
    "Sorry is a British sitcom.",
    PROSE * 4 + " I cannot help with that.",
]


def test_refusals_are_found_and_answers_are_not_refusals() -> None:
    assert measured("phrases", *answered(*REFUSALS))["refusal"] == [True] * len(REFUSALS)
    assert measured("phrases", *answered(*ANSWERS))["refusal"] == [False] * len(ANSWERS)


def test_boilerplate_is_counted() -> None:
    text = "As an AI language model, I like rivers. The Nile. I hope this helps! Feel free to ask more."
    assert measured("phrases", *answered(text, PROSE))["boilerplate"] == [3, 0]


CUT = [
    "The Nile flows north through eleven countries, and most of its water comes from the",
    "Here is the code:\n```python\ndef f(x):\n    return x",
    f"{PROSE}\nIn summer the rain falls on the highlands of Ethiopia, and then the rivers",
]
WHOLE = [
    PROSE,
    "Paris",
    "1. Copper\n2. Iron\n3. Tin",
    "- " + PROSE.rstrip("."),
    "```python\nprint(1)\n```",
    "````markdown\n```\ncode\n```\n````",
    "def add(first, second):\n    return first + second",
    "He asked: “Why does the Nile flow to the north and not to the south?”",
    "\n".join(["A verse of this poem has ten words and never any stop"] * 4),
    "See the documentation of the project for the details of this at https://example.org/a/b",
    "尼罗河向北流经十一个国家，大部分河水来自埃塞俄比亚高原。",
    "",
]


@pytest.mark.parametrize("text", CUT)
def test_cut_answers_are_found(text: str) -> None:
    assert truncated(text)


@pytest.mark.parametrize("text", WHOLE)
def test_whole_answers_are_not_cut(text: str) -> None:
    assert not truncated(text)


def test_marks_for_a_missing_value_are_found() -> None:
    assert all(map(placeholder, ("None", "nan", "NaN ", '"null"', "N/A", "undefined")))
    assert not any(map(placeholder, ("None of them.", "Nancy", "0", PROSE)))
    assert measured("endings", conversation("nan", PROSE), *answered(PROSE))["placeholder"] == [True, False]


def test_the_share_of_code() -> None:
    assert code_share("```python\nprint(1)\n```") == 1
    assert code_share("def f(x):\n    y = x + 1\n    return y\n") == 1
    assert code_share("SELECT name\nFROM people\nWHERE age > 30;") == 1
    assert code_share("<div>\n  <p>Hi</p>\n</div>") == 1
    assert code_share(PROSE) == code_share("") == 0
    assert 0.2 < code_share(f"{PROSE}\n```\n{'x = 1;' * 10}\n```") < 0.6


@pytest.mark.parametrize(
    "values",
    [
        {"signals": []},
        {"signals": ["turns", "turns"]},
        {"signals": ["tokens"]},
        {"signals": ["turns"], "tokenizer": "a/b"},
        {"tokenizer_revision": "main"},
        {"signals": ["no-such"]},
    ],
)
def test_settings_that_do_not_fit_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        parse(DescribeSettings, values, where="test")
