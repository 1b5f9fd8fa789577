"""Questions out of files of many layouts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tamis.core.errors import InputError, StorageError
from tamis.judging.questions import given_answers, questions_of
from tamis.judging.settings import AnswersContestant, PromptSet
from tests.conftest import shared_data


def prompt_set(folder: Path, rows: list[Any], **values: Any) -> PromptSet:
    (folder / "set.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return PromptSet(name="test", path=str(folder / "set.jsonl"), **values)


def test_texts_come_in_order_and_each_once(tmp_path: Path) -> None:
    rows = [{"prompt": " Why? "}, {"prompt": "What is 三?\u2028Say."}, {"prompt": "Why?"}]
    found = questions_of(prompt_set(tmp_path, rows))
    assert [question.text for question in found] == ["Why?", "What is 三?\u2028Say."]
    assert len({question.id for question in found}) == 2


def test_nested_fields_are_joined_and_later_ones_may_be_empty(tmp_path: Path) -> None:
    rows = [{"task": "Add.", "cases": [{"input": "1, 2"}]}, {"task": "Sing.", "cases": [{"input": ""}]}]
    found = questions_of(prompt_set(tmp_path, rows, fields=["task", "cases.0.input"]))
    assert [question.text for question in found] == ["Add.\n\n1, 2", "Sing."]


def test_a_limit_draws_by_its_seed_and_keeps_the_order(tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {i:02}?"} for i in range(50)]
    drawn = [
        [question.text for question in questions_of(prompt_set(tmp_path, rows, limit=10, seed=seed))]
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] == sorted(drawn[0])
    assert drawn[0] != drawn[2]
    assert len(questions_of(prompt_set(tmp_path, rows, limit=99))) == 50


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("no json", "line 2: not JSON"),
        ("[1]", "line 2: .*'prompt'"),
        ('{"text": "x", "id": 1}', "line 2: .*'prompt'.*: text, id"),
        ('{"prompt": ["x"]}', "line 2: 'prompt'"),
        ('{"prompt": "  "}', "line 2: 'prompt'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, seen: str) -> None:
    (tmp_path / "set.jsonl").write_text(f'{{"prompt": "Good?"}}\n{line}\n')
    with pytest.raises(InputError, match=seen):
        questions_of(PromptSet(name="test", path=str(tmp_path / "set.jsonl")))


@pytest.mark.parametrize("half", ["\\ud83d", "\\ude00 x"])
def test_half_of_a_surrogate_pair_is_refused_in_prompts_and_in_answers(tmp_path: Path, half: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(f'{{"prompt": "Good?", "answer": "Yes {half}"}}\n')
    with pytest.raises(InputError) as refused:
        given_answers(AnswersContestant(name="other", path=str(file)))
    assert refused.value.code == "input"
    assert "line 1: 'answer'" in refused.value.problem
    file.write_text(f'{{"prompt": "Good? {half}"}}\n')
    with pytest.raises(InputError) as refused:
        questions_of(PromptSet(name="test", path=str(file)))
    assert "line 1: 'prompt'" in refused.value.problem


def test_a_file_that_is_empty_or_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="empty"):
        questions_of(prompt_set(tmp_path, []))
    with pytest.raises(StorageError):
        questions_of(PromptSet(name="test", path=str(tmp_path / "gone.jsonl")))


@pytest.mark.parametrize(
    ("file", "fields", "count"),
    [
        ("vicuna_test_set.jsonl", ["text"], 80),
        ("koala_test_set.jsonl", ["prompt"], 180),
        ("wizardlm_test_set.jsonl", ["Instruction"], 216),  # of 218: two are there twice
        ("sinstruct_test_set.jsonl", ["instruction", "instances.0.input"], 252),
        ("lima_test_set.jsonl", ["conversations"], 300),
    ],
)
def test_the_published_sets_are_read_whole(file: str, fields: list[str], count: int) -> None:
    path = shared_data("judge", "prompts", file)
    assert len(questions_of(PromptSet(name=file, path=str(path), fields=fields))) == count


ALPACA = [
    {"dataset": "koala", "instruction": "Sing?", "output": "La", "generator": "davinci"},
    {"dataset": "koala", "instruction": "Dance?", "output": None, "generator": "davinci"},
    {"dataset": "koala", "instruction": "Jump?", "output": "  ", "generator": "davinci"},
]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("form", ["array", "lines", "packed"])
def test_answers_are_read_in_every_form_and_empty_ones_are_none(
    tmp_path: Path, mark: bytes, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    lines = "\n\n".join(json.dumps(row) for row in ALPACA)
    data = mark + (json.dumps(ALPACA, indent=1) if form == "array" else lines).encode()
    path = tmp_path / ("answers.json.gz" if form == "packed" else "answers.json")
    path.write_bytes(gzip.compress(data) if form == "packed" else data)
    given = given_answers(AnswersContestant(name="davinci", path=str(path), fields=["instruction"], answer="output"))
    (sing,) = questions_of(PromptSet(name="test", path=str(path), fields=["instruction"]))[:1]
    assert given == {sing.id: "La"}
    assert [record.args[1:3] for record in caplog.records if record.args] == [("2", "3")]


@pytest.mark.parametrize(
    "data", ['{"prompt": "Q", "answer": "Ä"}'.encode("latin-1"), '{"prompt": "Q"}'.encode("utf-16")]
)
def test_answers_in_another_encoding_are_refused_and_not_changed(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "answers.jsonl").write_bytes(data)
    with pytest.raises(InputError) as error:
        given_answers(AnswersContestant(name="a", path=str(tmp_path / "answers.jsonl")))
    assert error.value.allowed == "UTF-8"


def test_a_file_in_which_no_row_has_an_answer_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text('{"prompt": "Q", "answer": null}')
    with pytest.raises(InputError):
        given_answers(AnswersContestant(name="a", path=str(tmp_path / "answers.jsonl")))


def test_a_folder_of_save_to_disk_is_read_and_its_splits_are_told(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra 'hub'")
    rows = datasets.Dataset.from_dict({"prompt": ["One?", "Two?"]})
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": rows.select([0]), "test": rows.select([1])}).save_to_disk(tmp_path / "two")
    datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path / "other")

    def texts(folder: str, **given: Any) -> list[str]:
        return [one.text for one in questions_of(PromptSet(name="test", dataset=str(tmp_path / folder), **given))]

    assert texts("one") == ["One?", "Two?"]
    assert texts("two") == ["Two?"]
    assert texts("two", split="train") == ["One?"]
    assert texts("other", split="train[:1]") == ["One?"]
    for folder, given in (("other", {}), ("two", {"split": "validation"})):
        with pytest.raises(InputError) as refused:
            texts(folder, **given)
        assert (refused.value.code, "train" in refused.value.allowed) == ("input", True)
        assert "`split`" in refused.value.action


def test_a_loading_script_says_how_to_read_the_set_without_it(tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="needs the extra 'hub'")
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "script.py").write_text("raise SystemExit('run')")
    with pytest.raises(InputError) as refused:
        questions_of(PromptSet(name="test", dataset=str(tmp_path / "script")))
    assert refused.value.code == "input"
    assert "refs/convert/parquet" in refused.value.action
