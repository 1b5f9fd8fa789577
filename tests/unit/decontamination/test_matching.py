"""Samples that share words with evaluation data."""

from __future__ import annotations

import json
import tracemalloc
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tamis.cli import main
from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError, SettingsError
from tamis.core.idfiles import read_ids
from tamis.core.samples import Message, sample_id
from tamis.decontamination.matching import Decontamination, as_csv, decontaminate, markdown
from tamis.decontamination.runs import Runs, Texts, words_of
from tests.artifacts import conversation, make_pool
from tests.conftest import shared_data

QUESTION = "A baker sells twelve loaves on Monday and twice as many on Tuesday, so how many loaves did she sell?"
SHORT = "Which planet of the Sun has the most moons?"
PHRASE = "Answer the following question as well as you can and give a reason for your answer: "
INSTRUCTED = (
    f"{PHRASE}Why does the bread of the baker who sold so many loaves rise when she leaves it alone for an hour?"
)
LONG = f"{QUESTION} And how many of them were left when the village had eaten nine for lunch and given two to the dog?"
SAMPLES = [
    conversation(QUESTION.upper().replace(",", " --"), "36."),
    conversation("Say it in one word.", f"I was asked: {SHORT} I said Saturn."),
    conversation("A baker sells twelve loaves on Monday.", "And twice as many on Tuesday, so I heard."),
    conversation("How do I bake bread?", "Slowly."),
    *(conversation(f"{PHRASE}{n} + 1?", f"{n + 1}") for n in range(11)),
]


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return make_pool(tmp_path / "pool", SAMPLES, source=["a", "b"] + ["a"] * 13)


@pytest.fixture
def test_set(tmp_path: Path) -> str:
    rows = [{"id": 1, "question": "Unlike."}, {"item": {"question": QUESTION, "choices": [SHORT, INSTRUCTED]}}]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "test.jsonl")


def test_runs_of_words_are_found_whatever_their_case_and_punctuation(pool: Path, test_set: str) -> None:
    result = decontaminate(Artifact.open(pool, "pool"), [test_set])
    assert [one.id for one in result.found] == [sample_id(SAMPLES[0]), sample_id(SAMPLES[1])]
    assert [(one.file, one.record) for one in result.found] == [(test_set, 2)] * 2
    assert result.found[0].words == "a baker sells twelve loaves on monday and twice as many on tuesday"
    assert result.found[1].words == "which planet of the sun has the most moons"
    assert (result.samples, result.records) == (15, {test_set: 2})


def test_a_phrase_of_many_samples_excludes_none_of_them(pool: Path, test_set: str) -> None:
    result = decontaminate(Artifact.open(pool, "pool"), [test_set])
    assert set(result.common.values()) == {11}
    assert len(decontaminate(Artifact.open(pool, "pool"), [test_set], common=11).found) == 2 + 11


def many(text: str, samples: int = 11) -> list[list[Message]]:
    return [conversation(f"{text} I think it is {n}.", f"It is {n} indeed.") for n in range(samples)]


def look(
    tmp_path: Path, samples: list[list[Message]], *records: object, common: int = 10, name: str = "test.jsonl"
) -> Decontamination:
    pool = make_pool(tmp_path / "pool", samples)
    (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return decontaminate(Artifact.open(pool, "pool"), [str(tmp_path / name)], common=common)


@pytest.mark.parametrize("question", [LONG, QUESTION, SHORT])
def test_all_answers_to_a_question_are_excluded_however_many_they_are(question: str, tmp_path: Path) -> None:
    result = look(tmp_path, [*many(question), conversation("How do I bake bread?", "Slowly.")], {"q": question})
    assert (len(result.excluded), result.kept, result.common) == (11, 0, {})
    assert "11 of 12 samples share words" in markdown(result)


def test_half_of_a_text_is_enough_and_less_is_a_common_phrase(tmp_path: Path) -> None:
    words = LONG.split()
    half, less = (" ".join(words[: len(words) // 2 + more]) for more in (1, -1))
    assert len(look(tmp_path / "half", many(half), {"q": LONG}).excluded) == 11
    result = look(tmp_path / "less", many(less), {"q": LONG})
    assert (len(result.excluded), result.kept) == (0, 11)
    lines = markdown(result).splitlines()
    assert any(line.startswith("0 of 11 ") for line in lines)
    assert any(line.startswith("11 more ") for line in lines)


def test_half_of_a_text_may_be_spread_over_the_messages_of_a_sample(tmp_path: Path) -> None:
    words = LONG.split()
    parts = [conversation(f"{n}: " + " ".join(words[:14]), " ".join(words[-14:]) + f" {n}") for n in range(11)]
    assert len(look(tmp_path, parts, {"q": LONG}).excluded) == 11


def test_an_instruction_of_the_evaluation_data_is_no_part_of_its_questions(tmp_path: Path) -> None:
    asked = [f"{PHRASE}{n} loaves and {n} rolls are sold by {n} bakers, who is rich?" for n in range(20)]
    samples = [*many(PHRASE), *many(asked[3]), *many(asked[4].removeprefix(PHRASE))]
    result = look(tmp_path, samples, *({"q": text} for text in asked))
    assert list(result.excluded) == [sample_id(sample) for sample in samples[11:]]


def test_a_system_prompt_of_all_records_excludes_nothing(tmp_path: Path) -> None:
    records = [{"system": PHRASE, "q": text} for text in [QUESTION, *map(str, range(10))]]
    result = look(tmp_path, [*many(PHRASE), *many(QUESTION)], *records)
    assert (len(result.excluded), result.kept) == (11, 11)


def test_a_passage_with_many_questions_is_no_instruction(tmp_path: Path) -> None:
    passages = [{"passage": LONG, "q": n} for n in range(12)]
    result = look(tmp_path, many(LONG), *passages, *({"passage": f"Unlike {n}."} for n in range(120)))
    assert len(result.excluded) == 11


def test_the_report_says_where_its_lists_are_cut(tmp_path: Path) -> None:
    result = look(tmp_path, many(QUESTION, 60), {"q": QUESTION})
    assert "the first 50 of 60\n" in markdown(result)
    assert markdown(result).count("a baker sells") == 50
    common = " ".join(f"word{n}" for n in range(80))
    result = look(tmp_path / "common", many(common), {"q": common + " " + " ".join(f"other{n}" for n in range(90))})
    assert (result.common_runs, len(result.common)) == (68, 50)
    assert "which exclude nothing: the first 50 of 68\n" in markdown(result)


@pytest.mark.parametrize("common", [0, -1])
def test_fewer_samples_than_one_cannot_be_common(common: int, pool: Path, test_set: str) -> None:
    with pytest.raises(SettingsError, match=r"1 or more"):
        decontaminate(Artifact.open(pool, "pool"), [test_set], common=common)


@pytest.mark.parametrize(
    ("text", "words"),
    [("\uff26\uff35\uff2c\uff2c \ufb01ne", ["full", "fine"]), ("STRASSE straße", ["strasse", "strasse"]),
     ("_so_ snake_case", ["so", "snake", "case"]), ("cafe\u0301 CAFÉ", ["café", "café"]), ("हिन्दी में", ["हिन्दी", "में"]),
     ("বাংলা ভাষা", ["বাংলা", "ভাষা"]), ("తెలుగు", ["తెలుగు"]), ("co\u00adop र\u200dक", ["coop", "रक"]),
     ("don\u2019t \u2764\ufe0f 3.5", ["don", "t", "3", "5"]),
     ("\U00031350\u5b57", ["\U00031350\u5b57"])],  # a character of Unicode 15, which Python 3.11 does not know
)  # fmt: skip
def test_words_are_whole_in_every_script_and_form(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_each_file_that_has_the_words_is_counted_and_told_apart_by_its_path(pool: Path, tmp_path: Path) -> None:
    files = []
    for folder in ("mmlu", "gsm8k"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "test.jsonl").write_text(json.dumps({"q": QUESTION}))
        files.append(str(tmp_path / folder / "test.jsonl"))
    result = decontaminate(Artifact.open(pool, "pool"), files)
    assert len(result.excluded) == 1
    for file in files:
        assert f"| {file} | 1 | 1 |" in markdown(result)
        assert f"{file},1,a baker sells" in as_csv(result.found)


def test_a_bar_in_a_source_does_not_break_the_table(tmp_path: Path, test_set: str) -> None:
    pool = make_pool(tmp_path / "barred", SAMPLES[:1], source="a|b")
    assert "| a\\|b | 1 |" in markdown(decontaminate(Artifact.open(pool, "pool"), [test_set]))


def test_memory_does_not_grow_with_the_samples_that_share_a_phrase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Artifact, "batches", partialmethod(Artifact.batches, rows=50))
    words = [f"word{n}" for n in range(300)]
    (tmp_path / "test.txt").write_text(" ".join(words))
    peaks = []
    for samples in (100, 300):
        pool = make_pool(tmp_path / f"{samples}", [conversation(" ".join(words[:140]), "Yes.")] * samples)
        tracemalloc.start()
        assert decontaminate(Artifact.open(pool, "pool"), [str(tmp_path / "test.txt")]).kept == samples
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 200 < 100  # bytes a sample


@given(st.lists(st.sampled_from("abc"), max_size=30), st.lists(st.sampled_from("abc"), max_size=30))
def test_a_run_is_shared_when_the_texts_share_it(one: list[str], other: list[str]) -> None:
    length = min(9, len(one))
    inside = [other[i : i + length] for i in range(len(other) - length + 1)]
    expected = {" ".join(run) for run in inside if any(one[i : i + length] == run for i in range(30))}
    if length < 8:
        return
    runs = runs_of([one], words=9)
    assert {runs.words(run) for run in runs.shared([" ".join(other)]).tolist()} == expected


@given(st.lists(st.lists(st.sampled_from("ab"), min_size=8, max_size=30), min_size=1, max_size=3), st.data())
def test_a_text_is_covered_when_half_of_its_words_are_in_shared_runs(
    texts: list[list[str]], data: st.DataObject
) -> None:
    runs = runs_of(texts, words=9)
    shared = data.draw(st.sets(st.integers(0, len(runs) - 1)))
    words = {tuple(runs.words(run).split()) for run in shared}
    expected = set()
    for number, text in enumerate(map(tuple, texts), 1):
        length = min(9, len(text))
        at = [i for i in range(len(text) - length + 1) if text[i : i + length] in words]
        if 2 * len({j for i in at for j in range(i, i + length)}) >= len(text):
            expected.add(number)
    places = runs.places_in_covered(np.array(sorted(shared), np.int64))
    assert {record for place in places for record, _ in runs.records(places[places == place]).values()} == {
        min(n for n, text in enumerate(texts, 1) if text == texts[number - 1]) for number in expected
    }


def runs_of(texts: list[list[str]], words: int) -> Runs:
    kept = Texts(words, common=10)
    kept.add("file", ([" ".join(text)] for text in texts))
    return Runs(kept)


def test_the_command_writes_a_list_that_selection_takes_and_a_report(pool: Path, test_set: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["decontaminate", test_set, "--pool", str(pool), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "2 of 15 " in done.output
    assert len(read_ids(str(tmp_path / "out/excluded.csv"), setting="exclude")) == 2
    text = (tmp_path / "out/decontamination.md").read_text()
    assert f"| {test_set} | 2 | 2 |" in text
    assert f"| b | {test_set}, 2 | which planet" in text
    assert "give a reason" in text[text.index("## Common") :]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", json.dumps({"data": [{"q": QUESTION}]})), ("a.json", json.dumps([QUESTION])), ("a.txt", QUESTION),
     ("a.csv", f'"{QUESTION}",36\n"Unlike.",36\n')],
)  # fmt: skip
def test_other_layouts_are_read(name: str, content: str, pool: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    found = decontaminate(Artifact.open(pool, "pool"), [str(tmp_path / name)]).found
    assert [one.record for one in found] == [1]


def test_a_header_counts_as_the_first_record(pool: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f'question,answer\n\n"{QUESTION}",36\n')
    result = decontaminate(Artifact.open(pool, "pool"), [str(tmp_path / "a.csv")])
    assert ([one.record for one in result.found], list(result.records.values())) == ([2], [2])


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [("a.xml", "", SettingsError, "ends in '.xml'"), ("a.jsonl", "{", InputError, "cannot be read"),
     ("a.txt", "too short", InputError, "no text of 8 words")],
)  # fmt: skip
def test_what_is_no_evaluation_data_is_refused(
    name: str, content: str, error: type[Exception], words: str, pool: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(error, match=words):
        decontaminate(Artifact.open(pool, "pool"), [str(tmp_path / name)])


def test_real_test_questions_are_found_in_a_pool_that_has_some(tmp_path: Path) -> None:
    lines = shared_data("eval", "mmlu_test.jsonl").read_text(encoding="utf-8").splitlines()[:400]
    questions = [json.loads(line)["question"] for line in lines]
    long = [question for question in questions if len(question.split()) > 20][:5]
    own = [conversation(f"What is the number {i} good for?", f"For counting to {i}.") for i in range(50)]
    pool = make_pool(tmp_path / "pool", [*own, *(conversation(q, "A") for q in long)])
    (tmp_path / "mmlu.jsonl").write_text("\n".join(lines))
    found = decontaminate(Artifact.open(pool, "pool"), [str(tmp_path / "mmlu.jsonl")]).found
    assert [one.id for one in found] == [sample_id(conversation(q, "A")) for q in long]


def test_a_question_that_another_file_repeats_is_a_question_all_the_same(tmp_path: Path) -> None:
    samples = [conversation(LONG, f"{n}.") for n in range(11)]
    pool = Artifact.open(make_pool(tmp_path / "pool", samples), "pool")
    asked, repeated = tmp_path / "asked.txt", tmp_path / "repeated.txt"
    asked.write_text(LONG)
    repeated.write_text("\n".join([LONG] * 11 + [f"{SHORT} {n}" for n in range(9)]))
    for files in ([asked, repeated], [repeated, asked]):
        assert len(decontaminate(pool, [str(file) for file in files]).excluded) == 11
    assert decontaminate(pool, [str(repeated)]).excluded == {}


def test_without_a_file_there_is_nothing_to_compare_with(pool: Path) -> None:
    with pytest.raises(SettingsError):
        decontaminate(Artifact.open(pool, "pool"), [])
