"""`tamis init`: a first settings file, by options or by questions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("kfp")

from tamis.cli import main
from tamis_pipelines.settings import RunSettings, load_run
from tests.llm_server import Reaction, Server

FILE = Path("settings.yaml")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with data of 40 rows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    rows("data.jsonl", ({"uid": f"u{i}", "instruction": f"Say {i}.", "output": f"{i}."} for i in range(40)))
    return tmp_path


def rows(name: str, values: Any) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("".join(json.dumps(value) + "\n" for value in values))


def init(*arguments: str, answers: str | None = None) -> Result:
    return CliRunner().invoke(main, ["init", *arguments], input=answers)


def refused(*arguments: str) -> str:
    """The code of the error; nothing is written."""
    before = FILE.read_bytes() if FILE.exists() else None
    result = init(*arguments)
    assert result.exit_code == 78, result.output
    assert (FILE.read_bytes() if FILE.exists() else None) == before
    return result.output.rpartition("code:")[2].strip()


def written(*arguments: str, answers: str | None = None, file: Path = FILE) -> RunSettings:
    result = init(*arguments, answers=answers)
    assert result.exit_code == 0, result.output
    return load_run(file)


def failed_checks(settings: RunSettings) -> list[str]:
    from tamis_pipelines.doctor import examine

    return [str(check) for check in examine(settings) if not check.passed]


def test_options_alone_make_settings_that_doctor_passes() -> None:
    settings = written("--data", "data.jsonl", "--work-dir", "results")
    assert failed_checks(settings) == []
    assert settings.pool.sources[0].path == "data.jsonl"
    assert [(subset.strategy, subset.size) for subset in settings.subsets] == [("ds2", 4), ("random", 4)]
    assert [rater.backend.kind for rater in settings.raters] == ["transformers"]
    assert settings.finetuning is None
    assert settings.results == Path("results")
    assert not Path("results").exists()


def test_a_service_and_a_model_to_finetune() -> None:
    with Server() as server:
        server.on_models = Reaction({"object": "list", "data": [{"id": "org/Big Model: 2", "object": "model"}]})
        settings = written(
            *("--data", "data.jsonl", "--base-url", server.url, "--model", "org/Big Model: 2"),
            *("--api-key-env", "none", "--size", "0.25", "--base-model", "some/base", "--encoder", "some/encoder"),
        )
        assert failed_checks(settings) == []
    (rater,) = settings.raters
    assert rater.name == "big-model-2"
    assert rater.backend.kind == "openai"
    assert (rater.backend.model, rater.backend.api_key_env) == ("org/Big Model: 2", None)
    assert settings.subsets[0].size == 0.25
    assert settings.finetuning is not None
    assert settings.finetuning.model == "some/base"
    assert settings.embedding.model == "some/encoder"


def test_questions_are_asked_again_until_an_answer_can_be_used() -> None:
    rows("scores.jsonl", ({"uid": f"u{i}", "rating": i % 5 + 1} for i in range(30)))
    answers = ["nowhere.jsonl", "data.jsonl", "nobody", "import", "scores.jsonl", "1-5", "41", "7", "none", "out"]
    settings = written(answers="\n".join(answers) + "\n")
    assert failed_checks(settings) == []
    backend = settings.raters[0].backend.model_dump()
    assert {name: backend[name] for name in ("kind", "path", "by", "key", "overall")} == {
        "kind": "import",
        "path": "scores.jsonl",
        "by": "metadata",
        "key": "uid",
        "overall": "rating",
    }
    assert backend["scale"] == {"lowest": 1, "highest": 5, "step": None}
    assert settings.pool.sources[0].keep == ["uid"]
    assert settings.subsets[0].size == 7
    assert settings.work_dir == Path("out")


def test_every_question_has_an_answer_of_its_own_but_the_data() -> None:
    settings = written(answers="data.jsonl\n" + "\n" * 5)
    assert settings.raters[0].backend.kind == "transformers"
    assert init("other.yaml", answers="\n").exit_code == 1  # ended before an answer
    assert not Path("other.yaml").exists()


def test_the_layout_is_shown_and_asked_for_where_it_cannot_be_told() -> None:
    rows("odd.jsonl", ({"ask": f"Say {i}.", "say": f"\x1b[2J{i}."} for i in range(9)))
    assert refused("--data", "odd.jsonl") == "unknown-layout"
    by_options = written("--data", "odd.jsonl", "--prompt-field", "ask", "--answer-field", "say")
    result = init("other.yaml", answers="odd.jsonl\nask\nsay\n" + "\n" * 5)
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    assert "9 rows; layout: prompt_completion (ask, say)" in result.output
    assert by_options.pool == load_run(Path("other.yaml")).pool
    assert by_options.pool.sources[0].fields == {"prompt": "ask", "completion": "say"}


@pytest.mark.parametrize(
    "pair", [("Question", "answer"), ("query", "response"), ("input", "output"), ("prompt", "response"), ("q", "a")]
)
def test_a_usual_pair_of_names_is_taken_for_question_and_answer(pair: tuple[str, str]) -> None:
    Path("table.csv").write_text(",".join((*pair, "note")) + "\n" + "".join(f"Say {i}.,{i}.,x\n" for i in range(9)))
    result = init("--data", "table.csv")
    assert result.exit_code == 0, result.output
    assert ", ".join(pair) in result.output
    assert "--prompt-field" in result.output
    settings = load_run(FILE)
    assert settings.pool.sources[0].fields == {"prompt": pair[0], "completion": pair[1]}
    assert failed_checks(settings) == []


def test_two_usual_pairs_of_names_tell_nothing() -> None:
    rows("odd.jsonl", ({"q": f"Say {i}.", "a": f"{i}.", "question": "Why?", "answer": "So."} for i in range(9)))
    assert refused("--data", "odd.jsonl") == "unknown-layout"


def test_files_with_a_usual_pair_are_a_source_beside_those_of_another_layout() -> None:
    rows("both/a.jsonl", ({"instruction": f"Say {i}.", "output": f"{i}."} for i in range(3)))
    rows("both/b.jsonl", ({"q": f"Tell {i}.", "a": f"{i}."} for i in range(3)))
    sources = written("--data", "both").pool.sources
    assert [source.fields for source in sources] == [{}, {"prompt": "q", "completion": "a"}]


def test_sources_have_names_of_their_own_whatever_their_files_are_called() -> None:
    for name in ("x-2.jsonl", "x.jsonl", "more/x.jsonl"):
        rows(name, ({"instruction": f"Say {name} {i}.", "output": f"{i}."} for i in range(3)))
    sources = written("--data", "x-2.jsonl", "--data", "x.jsonl", "--data", "more/x.jsonl").pool.sources
    assert [source.name for source in sources] == ["x-2", "x", "x-3"]


def test_a_file_without_rows_among_others_is_no_source() -> None:
    rows("mixed/a.jsonl", ({"instruction": f"Say {i}.", "output": f"{i}."} for i in range(3)))
    rows("mixed/b.jsonl", ({"prompt": f"Tell {i}.", "completion": f"{i}."} for i in range(3)))
    Path("mixed/zz.csv").touch()
    settings = written("--data", "mixed")
    assert [source.path for source in settings.pool.sources] == ["mixed/a.jsonl", "mixed/b.jsonl"]


def test_fields_of_all_files_that_are_not_read_are_named() -> None:
    rows("two/a.jsonl", ({"instruction": f"Say {i}.", "output": f"{i}."} for i in range(3)))
    rows("two/b.jsonl", ({"instruction": f"Tell {i}.", "output": f"{i}.", "topic": "x"} for i in range(60)))
    rows(
        "two/c.jsonl",
        ({"instruction": f"T {i}.", "output": f"{i}."} | ({"late": 1} if i > 40 else {}) for i in range(60)),
    )
    written("--data", "two")
    assert {"topic", "late"} <= set(re.split(r"[ ,\n]+", Path("settings.yaml").read_text()))


def test_named_fields_are_for_the_saved_data_that_have_them() -> None:
    from datasets import Dataset

    Dataset.from_dict({"instruction": ["Say 1."], "input": [""], "output": ["1."]}).save_to_disk("with_layout")
    Dataset.from_dict({"question": ["Say 2."], "answer": ["2."]}).save_to_disk("with_pair")
    rows("own.jsonl", ({"mine": f"Say {i}.", "yours": f"{i}."} for i in range(3)))
    data = [option for name in ("with_layout", "with_pair", "own.jsonl") for option in ("--data", name)]
    sources = written(*data, "--prompt-field", "mine", "--answer-field", "yours").pool.sources
    assert [source.fields.get("prompt") for source in sources] == [None, "question", "mine"]


@pytest.mark.parametrize("column", ["stars", "verdict"])
def test_a_column_of_scores_of_an_unknown_name_is_asked_for(column: str) -> None:
    rows("scores.jsonl", ({"uid": f"u{i}", column: i % 5 + 1} for i in range(40)))
    asked = ["verdict"] if column == "verdict" else []
    answers = ["data.jsonl", "import", "scores.jsonl", *asked, "1-5", "7", "none", "out"]
    settings = written(answers="\n".join(answers) + "\n")
    backend = settings.raters[0].backend.model_dump()
    assert (backend["overall"], backend["key"]) == (column, "uid")
    assert failed_checks(settings) == []


def test_a_column_of_scores_of_an_unknown_name_is_refused_where_nothing_is_asked() -> None:
    rows("scores.jsonl", ({"uid": f"u{i}", "verdict": i % 10 + 1} for i in range(40)))
    assert refused("--data", "data.jsonl", "--ratings", "scores.jsonl") == "unknown-scores"


@pytest.mark.parametrize("field", ["nothing", "note", "uid=note", "note=uid", "uid=nothing", "=uid", "uid="])
def test_a_field_that_data_or_ratings_lack_is_refused(field: str) -> None:
    rows("scores.jsonl", ({"uid": f"u{i}", "score": i % 10 + 1} for i in range(40)))
    assert refused("--data", "data.jsonl", "--ratings", "scores.jsonl", "--by-field", field) == "input"


@pytest.mark.parametrize(("name", "by"), [("sample_id", "uid=sample_id"), ("a=b", "uid=a=b")])
def test_data_and_ratings_may_call_the_field_otherwise(name: str, by: str) -> None:
    rows("scores.jsonl", ({name: f"u{i}", "score": i % 10 + 1} for i in range(40)))
    settings = written("--data", "data.jsonl", "--ratings", "scores.jsonl", "--by-field", by)
    backend = settings.raters[0].backend.model_dump()
    assert (backend["by"], backend["key"], backend["field"]) == ("metadata", name, "uid")
    assert settings.pool.sources[0].keep == ["uid"]
    assert failed_checks(settings) == []


def test_only_columns_that_data_and_ratings_have_are_offered() -> None:
    rows("scores.jsonl", ({"key": f"u{i}", "output": "x", "score": i % 10 + 1} for i in range(39)))
    result = init("--data", "data.jsonl", "--ratings", "scores.jsonl")
    allowed = next(line for line in result.output.splitlines() if "allowed:" in line)
    assert "output" in allowed
    assert not [name for name in ("key", "uid", "score", "sample_id") if name in allowed]


def test_ratings_find_their_samples_by_row_or_not_at_all() -> None:
    rows("scores.jsonl", ({"score": i % 10 + 1} for i in range(40)))
    settings = written("--data", "data.jsonl", "--ratings", "scores.jsonl")
    backend = settings.raters[0].backend.model_dump()
    assert (backend["by"], backend["source"], backend["scale"]) == ("row", "mine", None)
    rows("scores.jsonl", ({"score": i % 10 + 1} for i in range(39)))
    assert refused("--data", "data.jsonl", "--ratings", "scores.jsonl", "--force") == "input"


@pytest.mark.parametrize("scores", [[1, 5], [0, 1], [1, 7], [10, 100], [0, 10]])
def test_a_scale_that_scores_do_not_tell_must_be_given(scores: list[int]) -> None:
    rows("scores.jsonl", ({"score": scores[i % 2]} for i in range(40)))
    assert refused("--data", "data.jsonl", "--ratings", "scores.jsonl") == "settings"
    settings = written("--data", "data.jsonl", "--ratings", "scores.jsonl", "--scale", f"{scores[0]}-{scores[1]}")
    assert settings.raters[0].backend.model_dump()["scale"] == {"lowest": scores[0], "highest": scores[1], "step": None}


def test_a_scale_that_scores_are_not_on_is_refused_or_asked_for_again() -> None:
    rows("scores.jsonl", ({"score": i % 5 + 1} for i in range(40)))
    assert refused("--data", "data.jsonl", "--ratings", "scores.jsonl", "--scale", "1-3") == "input"
    settings = written(answers="data.jsonl\nimport\nscores.jsonl\n1-3\nfive\nscores.jsonl\n1-5\n\n\n\n")
    assert settings.raters[0].backend.model_dump()["scale"] == {"lowest": 1, "highest": 5, "step": None}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--data", "nowhere.jsonl"], "storage"),
        (["--data", "data.jsonl", "--size", "41"], "input"),
        (["--data", "data.jsonl", "--size", "many"], "settings"),
        (["--data", "data.jsonl", "--size", "1.5"], "settings"),
        (["--data", "data.jsonl", "--rater", "import"], "settings"),
        (["--data", "data.jsonl", "--rater", "local", "--scale", "1-5"], "settings"),
        (["--data", "data.jsonl", "--prompt-field", "instruction"], "settings"),
        (["--data", "data.jsonl", "--ratings", "data.jsonl"], "unknown-scores"),
        (["--data", "data.jsonl", "--ratings", "a.csv", "--ratings", "b.csv"], "settings"),
        (["--data", "data.jsonl", "--ratings", "data.jsonl", "--score-column", "uid", "--scale", "5-1"], "settings"),
        (["--data", "data.jsonl", "--base-url", "http://user:KEY@somewhere/v1"], "settings"),
    ],
)
def test_answers_that_cannot_be_are_refused(arguments: list[str], code: str) -> None:
    assert refused(*arguments) == code


def test_a_file_is_replaced_by_force_only() -> None:
    FILE.write_text("mine\n")
    assert refused("--data", "data.jsonl") == "storage"
    assert refused() == "storage"  # before the first question
    assert written("--data", "data.jsonl", "--force").work_dir == Path("runs/first")


@pytest.mark.parametrize("name", ["a b.jsonl", "no: yes.jsonl", "{x}, #1.jsonl", "12.jsonl", "é'\".jsonl", "*.jsonl"])
def test_paths_of_any_form_stay_what_they_are(name: str) -> None:
    if name != "*.jsonl":
        rows(name, [{"prompt": "Say 1.", "completion": "1."}])
    assert written("--data", name, "--work-dir", "null").pool.sources[0].path == name
    assert load_run(FILE).work_dir == Path("null")


def test_files_of_two_layouts_are_two_sources_and_a_folder_that_datasets_wrote_is_read() -> None:
    from datasets import Dataset

    for name in ("a1", "a2"):
        rows(f"two/{name}.jsonl", [{"instruction": f"Say {name}.", "output": f"{name}.", "uid": name}])
    rows("two/b.jsonl", [{"prompt": "Say 2.", "completion": "2."}])
    result = init("--data", "two", "--size", "3")
    assert result.exit_code == 0, result.output
    assert "layout: instruction (instruction, output); not used: uid" in result.output
    assert "layout: prompt_completion (prompt, completion)" in result.output
    settings = load_run(FILE)
    assert failed_checks(settings) == []
    assert [(source.name, source.path) for source in settings.pool.sources] == [
        ("a", "two/a*.jsonl"),
        ("b", "two/b.jsonl"),
    ]
    Dataset.from_dict({"prompt": ["Say 1."], "completion": ["1."]}).save_to_disk("saved")
    settings = written("--data", "saved", "--force")
    assert failed_checks(settings) == []
    assert settings.subsets[0].size == 0.1


def test_several_files_are_as_many_sources_by_options_and_by_one_answer() -> None:
    rows("more chats.jsonl", ({"messages": turns(i)} for i in range(20)))
    by_options = written("--data", "data.jsonl", "--data", "more chats.jsonl", "--size", "60")
    assert failed_checks(by_options) == []
    assert [(source.name, source.path) for source in by_options.pool.sources] == [
        ("data", "data.jsonl"),
        ("more-chats", "more chats.jsonl"),
    ]
    other = Path("other.yaml")
    answers = "data.jsonl 'more chats.jsonl'\n\n\n60\n" + "\n" * 2
    assert written(str(other), answers=answers, file=other).pool == by_options.pool
    assert refused("--data", "data.jsonl", "--data", "more chats.jsonl", "--size", "61", "--force") == "input"


def turns(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Tell {number}."}, {"role": "assistant", "content": f"{number}."}]


def test_named_fields_are_those_of_the_files_that_have_them() -> None:
    rows("odd.jsonl", ({"q": f"Say {i}.", "a": f"{i}."} for i in range(9)))
    fields = ("--prompt-field", "q", "--answer-field", "a")
    settings = written("--data", "data.jsonl", "--data", "odd.jsonl", *fields)
    assert failed_checks(settings) == []
    assert [source.fields for source in settings.pool.sources] == [{}, {"prompt": "q", "completion": "a"}]
    assert refused("--data", "data.jsonl", *fields, "--force") == "input"  # no file has them


def test_a_file_that_two_of_the_data_hold_is_refused() -> None:
    assert refused("--data", "data.jsonl", "--data", "*.jsonl") == "input"


def test_ratings_of_several_sources_find_their_samples_by_a_field_that_all_have() -> None:
    rows("more.jsonl", ({"uid": f"v{i}", "prompt": f"Tell {i}.", "completion": f"{i}."} for i in range(10)))
    names = [f"u{i}" for i in range(40)] + [f"v{i}" for i in range(10)]
    rows("scores.jsonl", ({"uid": name, "score": i % 10 + 1} for i, name in enumerate(names)))
    data = ("--data", "data.jsonl", "--data", "more.jsonl", "--ratings", "scores.jsonl")
    settings = written(*data)
    assert failed_checks(settings) == []
    assert settings.raters[0].backend.model_dump()["key"] == "uid"
    assert [source.keep for source in settings.pool.sources] == [["uid"], ["uid"]]
    rows("scores.jsonl", ({"score": i % 10 + 1} for i in range(50)))
    assert refused(*data, "--force") == "input"


def test_a_data_set_of_the_hub_is_a_source_whether_the_hub_can_be_asked_or_not() -> None:
    rows("set/train.jsonl", ({"prompt": f"Tell {i}.", "completion": f"{i}.", "note": "x"} for i in range(10)))
    result = init("--data", "data.jsonl", "--data", "hub:set", "--data", "hub:some/where")
    assert result.exit_code == 0, result.output
    assert "layout: prompt_completion (prompt, completion); not used: note" in result.output
    assert "where, hub:some/where: " in result.output
    sources = load_run(FILE).pool.sources
    assert [source.dataset for source in sources] == [None, "set", "some/where"]
    assert load_run(FILE).subsets[0].size == 0.1


def test_a_folder_and_its_subfolders_are_data() -> None:
    rows("many/a.jsonl", ({"instruction": f"Say {i}.", "output": f"{i}."} for i in range(3)))
    rows("many/b/c.jsonl", ({"instruction": f"Tell {i}.", "output": f"{i}."} for i in range(9)))
    assert written("--data", "many", "--size", "12").subsets[0].size == 12


def test_a_path_of_any_script_is_written_so_that_it_is_read_back() -> None:
    Path("dä 😀.jsonl").write_text(Path("data.jsonl").read_text())
    settings = written("--data", "dä 😀.jsonl")
    assert settings.pool.sources[0].path == "dä 😀.jsonl"


def test_object_storage_that_is_away_is_not_read_and_the_next_steps_name_kubeflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://no-such-host.invalid")
    result = init("--data", "s3://bucket/pool.jsonl")
    assert result.exit_code == 0, result.output
    assert "not read: s3://bucket: the server no-such-host.invalid cannot be found" in result.output
    assert "tamis submit settings.yaml --dry-run" in result.output
    assert load_run(FILE).pool.sources[0].path == "s3://bucket/pool.jsonl"
