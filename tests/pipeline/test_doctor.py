"""What `tamis doctor` says before anything is spent."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.llm_server import Reaction, Server
from tests.pipeline.conftest import write, write_settings

pytest.importorskip("kfp")


def test_a_service_needs_its_key_and_no_model_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    from tamis_pipelines.doctor import examine
    from tamis_pipelines.settings import load_run

    with Server() as server:
        server.on_models = Reaction({"object": "list", "data": [{"id": "gpt-4o-mini", "object": "model"}]})
        rater = f"raters=[{{rater: gpt-4o-mini, backend: {{base_url: '{server.url}'}}}}]"
        settings = load_run(ROOT / "components/tamis/demo/settings.yaml", (rater,))

        def said() -> list[str]:
            return [str(check) for check in examine(settings) if "gpt-4o-mini.backend" in check.what]

        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        (missing,) = said()
        assert missing.startswith("FAIL")
        assert "OPENAI_API_KEY" in missing
        monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
        (there,) = said()
        assert there.startswith(f"ok    raters.gpt-4o-mini.backend.model: gpt-4o-mini at {server.url}")


def test_a_judge_and_its_prompts_are_looked_at_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from tamis_pipelines.doctor import examine
    from tamis_pipelines.settings import load_run

    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    service = "{kind: service, name: other, model: m, base_url: 'http://x/v1', api_key_env: NO_SUCH_KEY}"
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    judging = (
        "judging={prompts: [{name: set, path: nowhere.jsonl}], against: {kind: model, model: no/such/folder}, "
        f"opponents: {{elsewhere: {service}}}, judge: {{backend: {{kind: openai, model: m, base_url: 'URL'}}}}}}"
    )
    with Server() as server:
        given = load_run(ROOT / "components/tamis/demo/settings.yaml", (judging.replace("URL", server.url),))
        found = {check.what: check for check in examine(given)}
    assert not found["judging.prompts.set.path"].passed
    assert not found["judging.against.model"].passed
    assert found["judging.judge.backend.model"].passed
    assert not found["judging.opponents.elsewhere.model"].passed


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """Settings of a run of 42 samples whose ratings are imported, and whose vectors are of a model of the hub."""
    found: dict[str, Any] = yaml.safe_load(write_settings(tmp_path, tmp_path).read_text())
    return found | {"embedding": {"model": "some/embedder"}, "rates": {"samples": 5}}  # no run looks at rates


def checked(folder: Path, settings: dict[str, Any]) -> dict[str, str]:
    from tamis_pipelines.doctor import examine
    from tamis_pipelines.settings import load_run

    return {check.what: str(check) for check in examine(load_run(write(folder, settings), ()))}


def test_what_is_all_right_is_said_with_what_was_seen_and_nothing_is_left_behind(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    found = checked(tmp_path, settings)
    assert all(said.startswith("ok") for said in found.values()), found
    assert "42 rows" in found["raters.imported.backend"]
    assert "some/embedder" in found["memory"]
    assert "HF_TOKEN" in found["embedding.model"]
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("section", "what", "words"),
    [
        (
            {"subsets": [{"name": "best", "strategy": "ds2", "size": 99}]},
            "subset best",
            "42 samples",
        ),
        (
            {"subsets": [{"name": "best", "strategy": "ds2", "size": 9, "exclude": ["no.csv"]}]},
            "subsets.best.exclude.0",
            "no.csv",
        ),
        ({"curation": {"grades": {"path": "ann.csv"}}}, "curation.grades.path", "ann.csv"),
        (
            {"raters": [{"name": "r", "backend": {"kind": "openai", "model": "m"}, "sample": 0.5, "also": "no.txt"}]},
            "raters.r.also.0",
            "no.txt",
        ),
        ({"curation": {"grades": {"path": ["ann.csv"]}}}, "curation.grades.path.0", "ann.csv"),
        (
            {"evaluation": {"model": "m", "suite": "quik"}, "finetuning": {"model": "m"}},
            "evaluation.suite",
            "paper, quick",
        ),
    ],
)
def test_what_would_fail_later_fails_here(
    settings: dict[str, Any], tmp_path: Path, section: dict[str, Any], what: str, words: str
) -> None:
    said = checked(tmp_path, settings | section)[what]
    assert said.startswith("FAIL")
    assert words in said


def test_everything_that_a_run_refers_to_is_looked_at_before_it_begins(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of each kind is missing; none of it would be found before its own step runs."""
    from tamis_pipelines.doctor import examine
    from tamis_pipelines.settings import load_run

    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with Server() as server:
        service = {"kind": "openai", "model": "m", "base_url": server.url, "tokenizer": "./no/tokenizer"}
        rater = {"name": "asked", "backend": service, "prompt": "own-prompt.yaml", "sample": 0.5, "also": "no.txt"}
        subsets = [{"name": "best", "strategy": "less", "size": 9, "exclude": "no.csv"}]
        settings |= {
            "raters": [*settings["raters"], rater],
            "curation": {"grades": {"path": "no-grades.csv"}},
            "subsets": subsets,
            "influence": {"model": "./no/model", "tasks": [{"name": "t", "path": "no-task.jsonl"}]},
            "finetuning": {"model": "./no/base", "deepspeed": "own-zero.yaml"},
            "evaluation": {"suite": "own-suite.yaml", "data_dir": "no-tasks"},
            "judging": {
                "prompts": [{"name": "file", "path": "no.jsonl"}, {"name": "hub", "dataset": "./no/set"}],
                "against": {"kind": "answers", "name": "theirs", "path": "no-answers.jsonl"},
                "opponents": {"other": {"kind": "artifact", "path": "no-artifact"}},
                "judge": {"backend": service, "prompt": "own-judge.yaml"},
            },
        }
        found = examine(load_run(write(tmp_path, settings), ()))
    assert {check.what: check.code for check in found if check.level == "failed"} == {
        "raters.asked.backend.tokenizer": "model",
        "raters.asked.prompt": "settings",
        "raters.asked.also.0": "storage",
        "curation.grades.path": "storage",
        "subsets.best.exclude.0": "storage",
        "influence.model": "model",
        "influence.tasks.t.path": "storage",
        "finetuning.model": "model",
        "finetuning.deepspeed": "settings",
        "evaluation.suite": "settings",
        "evaluation.data_dir": "settings",
        "judging.prompts.file.path": "storage",
        "judging.prompts.hub.dataset": "input",
        "judging.against.path": "storage",
        "judging.opponents.other.path": "storage",
        "judging.judge.backend.tokenizer": "model",
        "judging.judge.prompt": "settings",
    } | {check.what: check.code for check in found if check.what == "packages"}


OWN_PROMPT = ROOT / "components/tamis/rating/prompts/ds2-v1.yaml"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, ""),
        ({"criteria": {"helpfulness": "how helpful"}}, ""),
        ({"template": "Rate {sample}."}, "settings"),
        ({"scale": {"lowest": 0, "highest": 1}}, "settings"),
    ],
)
def test_an_own_prompt_is_read_before_a_run(
    settings: dict[str, Any], tmp_path: Path, change: dict[str, Any], code: str
) -> None:
    from tamis_pipelines.checks.files import files
    from tamis_pipelines.settings import load_run

    own = write_yaml(tmp_path / "own.yaml", yaml.safe_load(OWN_PROMPT.read_text()) | change)
    rater = {"name": "r", "backend": {"kind": "transformers", "model": "some/rater"}, "prompt": own}
    given = load_run(write(tmp_path, settings | {"raters": [rater]}), ())
    assert [(check.what, check.code) for check in files(given)] == [("raters.r.prompt", code)]


def test_a_deepspeed_configuration_that_is_no_yaml_is_found_before_a_run(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    from tamis_pipelines.checks.files import files
    from tamis_pipelines.settings import load_run

    (tmp_path / "ds.json").write_text('{"zero_optimization": {')
    trained = {"finetuning": {"model": "m", "deepspeed": str(tmp_path / "ds.json")}, "evaluation": {"suite": "quick"}}
    given = load_run(write(tmp_path, settings | trained), ())
    assert {check.what: check.code for check in files(given)} == {
        "finetuning.deepspeed": "settings",
        "evaluation.suite": "",
    }


def test_an_opponent_that_is_to_chat_has_a_template(settings: dict[str, Any], models: Path, tmp_path: Path) -> None:
    from tamis_pipelines.checks.asked import asked
    from tamis_pipelines.settings import load_run

    plain = weights(tmp_path / "plain", safetensors=1)
    (Path(plain) / "tokenizer_config.json").write_text("{}")
    judging = {
        "prompts": [{"name": "file", "path": "asked.jsonl"}],
        "against": {"kind": "model", "model": plain},
        "opponents": {
            "plain": {"kind": "model", "model": plain, "format": "tulu"},
            "chat": {"kind": "model", "model": str(models / "smollm2")},
        },
        "judge": {"backend": {"kind": "transformers", "model": "some/judge"}},
    }
    trained = {"finetuning": {"model": "m"}, "evaluation": {"suite": "quick"}, "judging": judging}
    given = load_run(write(tmp_path, settings | trained), ())
    assert [(check.what, check.code) for check in asked(given)] == [("judging.against: chat", "settings")]


def test_a_column_of_ratings_that_is_not_there_is_named(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["raters"][0]["backend"]["overall"] = "nope"
    said = checked(tmp_path, settings)["raters.imported.backend"]
    assert said.startswith("FAIL")
    assert "'nope'" in said


@pytest.mark.parametrize(
    "content",
    [b'{"question": "Add.", "reply": "3"}', '{"prompt": "Ä", "completion": "Ö"}'.encode("latin-1")],
)
def test_files_that_are_no_part_of_their_source_are_found_before_a_run(
    settings: dict[str, Any], tmp_path: Path, content: bytes
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"prompt": "Q", "completion": "A"}\n')
    settings["pool"]["sources"] = [{"name": "mine", "path": f"{folder}/*.jsonl"}]
    assert checked(tmp_path, settings)["pool.sources.mine"].startswith("ok")
    (folder / "b.jsonl").write_bytes(content)
    said = checked(tmp_path, settings)
    assert said["pool.sources.mine"].startswith("FAIL")
    assert said["pool.sources.mine.path"].startswith("ok")


def write_yaml(file: Path, values: dict[str, Any]) -> str:
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return str(file)


def weights(folder: Path, **gib: int) -> str:
    """A folder like a model's, whose files of weights by ending are so many GiB long and take no place."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    for ending, size in gib.items():
        with (folder / f"model.{ending}").open("wb") as file:
            file.truncate(size << 30)
    return str(folder)


def test_only_models_that_the_run_uses_are_looked_at(settings: dict[str, Any], tmp_path: Path) -> None:
    trained = {"finetuning": {"model": weights(tmp_path / "local", safetensors=1)}, "evaluation": {"suite": "quick"}}
    found = checked(tmp_path, settings | trained)
    assert "evaluation.model" not in found, "the model that is trained is evaluated"
    assert "Llama" not in " ".join(found.values())
    assert found["finetuning.model"].startswith("ok")
    several = {
        "experiment": {"models": [trained["finetuning"]["model"]]},
        "finetuning": {"model": "./nowhere"},
        "evaluation": {"suite": "quick"},
    }
    found = checked(tmp_path, settings | several)
    assert "finetuning.model" not in found
    assert found["experiment.models.0.model"].startswith("ok")


def test_weights_that_lie_there_twice_count_once_and_four_times_only_where_they_are_trained(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    large = weights(tmp_path / "large", safetensors=10, bin=10)
    older = weights(tmp_path / "older", bin=5)
    embedded = settings | {"embedding": {"model": large}}
    assert f"{large}, 10.00 GiB of weights" in checked(tmp_path, embedded)["embedding.model"]
    assert f"about {2 + 1.2 * 10:.1f} GiB needed" in checked(tmp_path, embedded)["memory"]
    trained = {"finetuning": {"model": older}, "evaluation": {"suite": "quick"}}
    assert f"about {2 + 4 * 5:.1f} GiB needed" in checked(tmp_path, embedded | trained)["memory"]


def test_every_cell_s_model_takes_its_place_on_the_disk(settings: dict[str, Any], tmp_path: Path) -> None:
    models = [weights(tmp_path / name, safetensors=size) for name, size in (("small", 1), ("large", 3))]
    experiment = {
        "experiment": {"models": models, "seeds": [1, 2]},
        "finetuning": {},
        "evaluation": {"suite": "quick"},
    }
    cells = 2 * 2  # subsets and seeds
    needed = 1 + cells * (1 + 3) + 3  # beside models, the models, and the one that is being made
    assert f"about {needed:.1f} GiB needed" in checked(tmp_path, settings | experiment)["disk"]


def test_a_store_of_an_unknown_kind_is_one_failed_check(settings: dict[str, Any], tmp_path: Path) -> None:
    rater = {"name": "local", "backend": {"kind": "transformers", "model": "some/rater"}, "store": "https://host/store"}
    subset = {"name": "best", "strategy": "ds2", "size": 10, "rater": "local"}
    found = checked(tmp_path, settings | {"raters": [*settings["raters"], rater], "subsets": [subset]})
    said = found["raters.local.store"]
    assert said.startswith("FAIL")
    assert "'https'" in said
    assert "s3://" in said
    assert "disk" in found


def test_a_rater_must_be_a_model_that_chats(settings: dict[str, Any], models: Path, tmp_path: Path) -> None:
    from tamis_pipelines.checks.asked import asked
    from tamis_pipelines.settings import load_run

    plain = shutil.copytree(models / "smollm2", tmp_path / "plain", copy_function=os.link)
    for file in ("chat_template.jinja", "tokenizer_config.json"):
        (plain / file).unlink(missing_ok=True)
    kept = json.loads((models / "smollm2/tokenizer_config.json").read_text())
    (plain / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in kept.items() if k != "chat_template"}))
    said = {}
    for name, model in (("chat", models / "smollm2"), ("encoder", models / "minilm"), ("plain", plain)):
        settings["raters"] = [{"name": "r", "backend": {"kind": "transformers", "model": str(model)}}]
        said[name] = [check.level for check in asked(load_run(write(tmp_path, settings), ()))]
    assert said == {"chat": [], "encoder": ["failed"], "plain": ["failed"]}


def test_ratings_by_a_field_that_sources_do_not_keep_are_found_before_the_run(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    (source,) = settings["pool"]["sources"]
    file = tmp_path / "scores.jsonl"
    file.write_text('{"uid": "a", "overall": 7}\n')
    backend = {"kind": "import", "path": str(file), "by": "metadata", "key": "uid", "scale": "1-10"}
    settings["raters"] = [{"name": "alice", "backend": backend}]
    other = source | {"name": "other", "keep": ["uid"]}
    assert checked(tmp_path, settings)["raters.alice.backend.key"].startswith("FAIL")
    settings["pool"]["sources"] = [source, other]
    assert checked(tmp_path, settings)["raters.alice.backend.key"].startswith("NOTE")
    settings["pool"]["sources"] = [other]
    assert "raters.alice.backend.key" not in checked(tmp_path, settings)


@pytest.mark.parametrize(
    ("scores", "scale", "level"),
    [
        ([1, 5, 10], None, "ok"),
        ([1, 5], None, "FAIL"),  # on another scale, as it seems
        ([1, 5], {"lowest": 1, "highest": 5}, "ok"),
        ([1, 5], {"lowest": 1, "highest": 3}, "FAIL"),
        ([1, 5], {"lowest": 1, "highest": 10}, "NOTE"),
        ([None], "1-10", "FAIL"),
    ],
)
def test_ratings_are_read_as_a_run_reads_them(
    settings: dict[str, Any], tmp_path: Path, scores: list[Any], scale: Any, level: str
) -> None:
    file = tmp_path / "scores.jsonl"
    file.write_text("".join(json.dumps({"overall": scores[n % len(scores)]}) + "\n" for n in range(42)))
    settings["raters"] = [{"name": "r", "backend": {"kind": "import", "path": str(file), "by": "row", "scale": scale}}]
    assert checked(tmp_path, settings)["raters.r.backend"].startswith(level)


@pytest.mark.parametrize(
    ("numbers", "backend", "limit", "level"),
    [
        (range(42), {}, None, "ok"),
        (range(41), {}, None, "FAIL"),  # too few
        (range(41), {}, 20, "ok"),
        (range(1, 43), {"key": "n"}, None, "FAIL"),  # from 0 or from 1?
        (range(1, 43), {"key": "n", "first_row": 1}, None, "ok"),
        (range(42), {"key": "n"}, None, "ok"),
    ],
)
def test_rows_that_are_not_those_of_the_source_are_found_before_the_run(
    settings: dict[str, Any], tmp_path: Path, numbers: range, backend: dict[str, Any], limit: int | None, level: str
) -> None:
    settings["pool"]["sources"][0] |= {"limit": limit}
    file = tmp_path / "scores.jsonl"
    file.write_text("".join(json.dumps({"n": n, "overall": 1 + n % 10}) + "\n" for n in numbers))
    settings["raters"] = [{"name": "r", "backend": {"kind": "import", "path": str(file), "by": "row"} | backend}]
    assert checked(tmp_path, settings)["raters.r.backend"].startswith(level)


@pytest.mark.parametrize(("backend", "level"), [({}, "FAIL"), ({"key": "n", "first_row": 0}, "NOTE")])
def test_ratings_out_of_the_scale_may_be_of_samples_that_the_pool_has_not(
    settings: dict[str, Any], tmp_path: Path, backend: dict[str, Any], level: str
) -> None:
    file = tmp_path / "scores.jsonl"
    scores = [-1 if n % 5 == 0 else 1 + n % 10 for n in range(42)]
    file.write_text("".join(json.dumps({"n": n, "overall": score}) + "\n" for n, score in enumerate(scores)))
    settings["raters"] = [{"name": "r", "backend": {"kind": "import", "path": str(file), "by": "row"} | backend}]
    assert checked(tmp_path, settings)["raters.r.backend"].startswith(level)


def test_a_folder_where_a_file_is_read_is_found_before_the_run(settings: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "scores.jsonl"
    folder.mkdir()
    settings["raters"] = [{"name": "r", "backend": {"kind": "import", "path": str(folder), "by": "row"}}]
    settings["subsets"] = [{"name": "best", "strategy": "ds2", "size": 9, "exclude": [str(folder)]}]
    found = checked(tmp_path, settings)
    assert found["raters.r.backend"].startswith("FAIL")
    assert found["best: exclude"].startswith("FAIL")


def test_two_ratings_with_one_key_are_found_before_the_run(settings: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "scores.jsonl"
    file.write_text('{"uid": "a", "overall": 7}\n{"uid": "a", "overall": 9}\n')
    backend = {"kind": "import", "path": str(file), "by": "metadata", "key": "uid"}
    settings["raters"] = [{"name": "r", "backend": backend}]
    assert checked(tmp_path, settings)["raters.r.backend"].startswith("FAIL")


@pytest.mark.parametrize(
    ("changes", "refused"),
    [({}, True), ({"output": "Since I am."}, False), ({"uid": None}, False), ({"output": ""}, False)],
    ids=["two samples", "one sample twice", "no id", "no sample"],
)
def test_an_id_that_two_samples_share_is_found_before_the_run(
    settings: dict[str, Any], tmp_path: Path, changes: dict[str, Any], refused: bool
) -> None:
    first = {"uid": 1, "instruction": "Why are you?", "output": "Since I am."}
    for name, row in (("a", first), ("b", first | {"output": "So."} | changes)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    sources = [{"name": name, "path": str(tmp_path / f"{name}.jsonl"), "keep": ["uid"]} for name in "ab"]
    settings["pool"]["sources"] = sources
    file = tmp_path / "scores.jsonl"
    file.write_text('{"uid": 1, "overall": 7}\n')
    backend = {"kind": "import", "path": str(file), "by": "metadata", "key": "uid"}
    settings["raters"] = [{"name": "r", "backend": backend}]
    assert ("pool: uid" in checked(tmp_path, settings)) == refused


def test_rows_that_are_lost_are_noted_with_the_reason_and_the_setting(settings: dict[str, Any], tmp_path: Path) -> None:
    rows = [{"instruction": f"Why {i}?", "output": "So."} for i in range(40)]
    rows[1]["system"] = "Be brief."
    rows[2]["output"] = ""
    file = tmp_path / "few.jsonl"
    settings["pool"]["sources"] = [{"name": "few", "path": str(file)}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = checked(tmp_path, settings)["pool.sources.few"]
    assert said.startswith("NOTE")
    assert "system" in said
    for row in rows[:20]:
        row["output"] = ""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "pool.max_reject_share" in checked(tmp_path, settings)["pool.sources.few"]


@pytest.mark.parametrize(
    ("rows", "more", "passed"),
    [
        ([{"id": "0" * 32, "grade": 7}], {}, True),
        ([{"id": "0" * 32, "score": 7}], {}, False),
        ([{"id": "mine-1", "grade": 7}], {}, False),
        ([{"id": "mine-1", "grade": 7}], {"key": "id", "field": "uid"}, True),
        ([{"id": "0" * 32, "grade": 12}], {}, False),
        ([{"id": f"{number:032x}", "grade": 1 + number % 5} for number in range(40)], {}, False),
        (
            [{"id": f"{number:032x}", "grade": 1 + number % 5} for number in range(40)],
            {"scale": {"lowest": 1, "highest": 5}},
            True,
        ),
    ],
)
def test_grades_are_read_as_a_run_reads_them(
    settings: dict[str, Any], tmp_path: Path, rows: list[dict[str, Any]], more: dict[str, Any], passed: bool
) -> None:
    file = tmp_path / "grades.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings["curation"] = {"grades": {"path": str(file), **more}}
    said = checked(tmp_path, settings)
    assert said["curation.grades"].startswith("ok" if passed else "FAIL")
    assert ("curation.grades.key" in said) == ("key" in more)  # no source keeps the field


def test_a_field_to_keep_that_the_first_rows_lack_is_a_note(settings: dict[str, Any], tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "completion": "So."} | ({"grade": 3} if n == 150 else {}) for n in range(200)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings["pool"]["sources"] = [{"name": "mine", "path": str(tmp_path / "mine.jsonl"), "keep": ["grade"]}]
    said = checked(tmp_path, settings)["pool.sources.mine"]
    assert said.startswith("NOTE")
    assert "grade" in said


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_field_to_keep_that_no_row_has_is_found_before_a_run(
    settings: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    file = tmp_path / f"mine.{kind}"
    rows = [("Why?", "So.", "a"), ("When?", "Now.", "b")]
    if kind == "jsonl":
        names = ("prompt", "completion", "uid")
        file.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    else:
        file.write_text("prompt,completion,uid\n" + "".join(",".join(row) + "\n" for row in rows))
    source = {"name": "mine", "path": str(file)}
    settings["pool"]["sources"] = [source | {"keep": ["uid"]}]
    assert checked(tmp_path, settings)["pool.sources.mine"].startswith("ok")
    settings["pool"]["sources"] = [source | {"keep": ["uid", "gone"]}]
    said = checked(tmp_path, settings)["pool.sources.mine"]
    assert said.startswith("FAIL")
    assert "gone" in said
