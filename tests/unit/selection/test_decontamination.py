"""Samples that share words with evaluation data."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tamis.cli import main
from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError, SettingsError
from tamis.core.samples import sample_id
from tamis.selection.decontamination import _Hashing, _Runs, decontaminate
from tamis.selection.exclusion import read_ids
from tests.artifacts import conversation, make_pool
from tests.conftest import shared_data

QUESTION = "A baker sells twelve loaves on Monday and twice as many on Tuesday, so how many loaves did she sell?"
SHORT = "Which planet of the Sun has the most moons?"
PHRASE = "Answer the following question as well as you can and give a reason for your answer: "
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
    rows = [{"id": 1, "question": "Unlike."}, {"item": {"question": QUESTION, "choices": [SHORT, PHRASE + "Why?"]}}]
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


@given(st.lists(st.sampled_from("abc"), max_size=30), st.lists(st.sampled_from("abc"), max_size=30))
def test_a_run_is_shared_when_the_texts_share_it(one: list[str], other: list[str]) -> None:
    runs = _Runs(_Hashing(), 9)
    runs.add(" ".join(one), "file", 1)
    runs.finish()
    length = min(9, len(one))
    inside = [other[i : i + length] for i in range(len(other) - length + 1)]
    expected = {" ".join(run) for run in inside if length >= 8 and any(one[i : i + length] == run for i in range(30))}
    assert {said for _, said in runs.in_text(" ".join(other))} == expected


def test_the_command_writes_a_list_that_selection_takes_and_a_report(pool: Path, test_set: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["decontaminate", test_set, "--pool", str(pool), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "2 of 15 samples share words" in done.output
    assert len(read_ids(str(tmp_path / "out/excluded.csv"))) == 2
    text = (tmp_path / "out/decontamination.md").read_text()
    assert "| test.jsonl | 2 | 2 |" in text
    assert re.search(r"\| b \| test.jsonl, 2 \| which planet", text)
    assert "give a reason" in text[text.index("Common phrases") :]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", json.dumps({"data": [{"q": QUESTION}]})), ("a.json", json.dumps([QUESTION])), ("a.txt", QUESTION),
     ("a.csv", f'question,answer\n"{QUESTION}",36\n')],
)  # fmt: skip
def test_other_layouts_are_read(name: str, content: str, pool: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    found = decontaminate(Artifact.open(pool, "pool"), [str(tmp_path / name)]).found
    assert [one.record for one in found] == [1]


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
