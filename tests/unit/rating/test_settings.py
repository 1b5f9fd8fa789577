"""Settings, raters and prompts: short to write, and errors that name the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tamis.core.errors import SettingsError
from tamis.core.settings import hash_of, parse, said, shipped
from tamis.llm.backends.transformers import TransformersSettings
from tamis.rating import prompts, raters
from tamis.rating.prompts import load_prompt
from tamis.rating.settings import AskedRater, ImportedRater, ImportSettings, RatingSettings

LOCAL = {"kind": "transformers", "model": "m"}
FILE = {"kind": "import", "path": "x.jsonl", "by": "row"}


def settings(**values: Any) -> RatingSettings:
    return parse(RatingSettings, {"name": "r", "backend": LOCAL} | values, where="here")


def test_limits_of_money_are_no_part_of_a_step_s_key() -> None:
    plain = settings(price={"input": 1, "output": 1})
    assert plain.for_key() == plain.model_dump(mode="json"), "keys of steps without limits are as they always were"
    assert "budget_share" not in plain.for_key()
    for limits in ({"max_cost": 5}, {"budget_share": 2}, {"max_cost": 5, "budget_share": 2}):
        assert plain.model_copy(update=limits).for_key() == plain.for_key()
    assert settings(price={"input": 2, "output": 1}).for_key() != plain.for_key()


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"backend": FILE}, "ed1a2d1a1a2ceefa6813df6bc26adabdc82d5ffe65e0114adfe4edfc9ae15961"),
        (
            {"backend": {"kind": "import", "path": "r.csv", "by": "metadata", "key": "k"}
             | {"scale": {"lowest": 1, "highest": 5}}, "max_failure_share": 0.2, "also": [], "prompt": "ds2-v1"},
            "3b641797a133412bb1f9c6e5305f01bdd5c4ca28ae1c27d2ddc4af72ccb1f3b7",
        ),
        ({"backend": LOCAL}, "f9359063fbde67a57b15b36d0dfc0a5ea8a5d75ed02d146f06ec30c58f9a0723"),
        (
            {"name": "b", "backend": {"kind": "openai", "model": "m"}, "price": {"input": 1, "output": 2}}
            | {"max_cost": 3, "sample": 0.5, "also": "ids.txt", "shard": "2/4", "temperature": 0.7, "seed": 3},
            "ac97120c998a80812cc52cf69909793998ed55ab61bdac7e4f5fb7aaf5cbca70",
        ),
    ],
)  # fmt: skip
def test_settings_have_the_keys_of_version_0_4(values: dict[str, Any], key: str) -> None:
    assert hash_of(settings(**{"name": "a"} | values).for_key()) == key


def test_the_backend_decides_whether_a_rater_is_asked_or_imported() -> None:
    assert type(settings()) is AskedRater
    assert type(settings(backend=FILE)) is ImportedRater
    assert not hasattr(settings(backend=FILE), "temperature")


def test_an_import_may_repeat_the_defaults_of_asked_raters() -> None:
    """Files that were valid when there was one class for both stay valid."""
    own = {"prompt": "ds2-v1", "temperature": 0, "also": [], "price": None, "max_attempts": 3.0, "seed": 7}
    imported = settings(backend=FILE, **own)
    assert imported == settings(backend=FILE)
    assert said(imported) == {"name": "r", "backend": FILE}


def test_two_lines_describe_a_rater() -> None:
    assert settings().backend == TransformersSettings(model="m")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "Llama 3"}, ["name", "Llama 3"]),
        ({"backend": {"kind": "transformers"}}, ["backend.model: missing"]),
        ({"backend": LOCAL | {"modle": "m"}}, ["unknown setting", "did you mean 'model'"]),
        ({"backend": {"kind": "opnai"}}, ["backend", "openai", "transformers", "import"]),
        ({"backend": {"model": "m"}}, ["backend", "kind"]),
        ({"temprature": 1}, ["did you mean 'temperature'"]),
        ({"top_p": 0}, ["top_p", "greater than 0"]),
        ({"max_cost": 5}, ["'max_cost' needs 'price'"]),
        ({"backend": {"kind": "openai", "model": "m", "api_key_env": "sk-a.b"}}, ["api_key_env", "pattern"]),
        (
            {"backend": {"kind": "openai", "model": "m", "azure": {"api_version": "2024-10-21"}}},
            ["'base_url'"],
        ),
        ({"backend": {"kind": "import", "path": "x.csv", "by": "metadata"}}, ["'key' must name"]),
        ({"backend": {"kind": "import", "path": "x.csv", "by": "id", "source": "s"}}, ["'source'", "by: row"]),
        ({"backend": {"kind": "import", "path": "x.csv", "by": "id", "field": "s"}}, ["'field'", "by: metadata"]),
        (
            {"backend": {"kind": "import", "path": "x.csv", "by": "row", "source": "s", "source_column": "c"}},
            ["not both"],
        ),
        (
            {"backend": {"kind": "import", "path": "x.csv", "by": "id", "scale": "classes", "expected": "e"}},
            ["'expected'", "classes"],
        ),
        (
            {"backend": {"kind": "import", "path": "x.csv", "by": "id"}, "temperature": 1},
            ["'temperature' has no effect"],
        ),
        ({"backend": {"kind": "import", "path": "x.csv", "by": "id"}, "store": "s"}, ["'store' has no effect"]),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SettingsError) as error:
        settings(**values)
    for word in words:
        assert word in str(error.value)


def test_settings_survive_the_way_through_a_pipeline() -> None:
    for given in (
        settings(rater="llama-3.1-8b-instruct", name="x"),
        settings(backend={"kind": "import", "path": "p", "by": "row"}),
    ):
        assert parse(RatingSettings, given.model_dump(mode="json"), where="there") == given


@pytest.mark.parametrize("name", shipped(raters.FOLDER))
def test_every_rater_that_ships_is_valid(name: str) -> None:
    rater = parse(RatingSettings, {"rater": name}, where="here")
    assert rater.name == name
    assert rater.temperature == (0 if name == "gpt-4o-mini" else 1.2)  # the paper names none for GPT


def test_what_stands_beside_a_rater_overrides_it() -> None:
    rater = parse(
        RatingSettings,
        {"rater": "llama-3.1-8b-instruct", "name": "mine", "temperature": 0, "backend": {"model": "copy/of-it"}},
        where="here",
    )
    assert (rater.name, rater.temperature, rater.top_k) == ("mine", 0, 50)
    assert rater.backend == TransformersSettings(model="copy/of-it")


def test_a_rater_of_ones_own_is_a_yaml_file(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "version: 1\ndescription: own\nsettings: {name: own, backend: {kind: import, path: x.csv, by: id}}\n"
    )
    assert isinstance(parse(RatingSettings, {"rater": str(path)}, where="here").backend, ImportSettings)


def test_an_unknown_rater_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"gpt-9(.|\n)*llama-3.1-8b-instruct"):
        parse(RatingSettings, {"rater": "gpt-9"}, where="here")


@pytest.mark.parametrize("name", shipped(prompts.FOLDER))
def test_every_prompt_that_ships_shows_the_shared_part_first(name: str) -> None:
    prompt = load_prompt(name)
    assert all(key in prompt.before for key in prompt.form.keys)
    assert "{" + "sample}" not in prompt.before
    assert prompt.before.endswith("\n")
    assert prompt.after == ""


def prompt_file(folder: Path, old: str = "", new: str = "") -> str:
    text = (Path(prompts.__file__).parent / "ds2-v1.yaml").read_text()
    assert old in text
    path = folder / "own.yaml"
    path.write_text(text.replace(old, new) if old else text)
    return str(path)


def test_the_hash_is_that_of_what_the_rater_sees(tmp_path: Path) -> None:
    shipped = load_prompt("ds2-v1").hash
    assert load_prompt(prompt_file(tmp_path)).hash == shipped
    assert load_prompt(prompt_file(tmp_path, "version: 1\n", "# a comment\nversion: 1\n")).hash == shipped
    assert load_prompt(prompt_file(tmp_path, "description: The", "description: Not the")).hash == shipped
    for old, new in (("version: 1", "version: 2"), ("how unusual", "how odd"), ("middle of", "the middle of")):
        assert load_prompt(prompt_file(tmp_path, old, new)).hash != shipped


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{sample}", "", "{sample} exactly once"),
        ("{criteria}", "", "{criteria} exactly once"),
        ("{criteria}", "{sample}\n\n  {criteria}", "{sample} exactly once"),
        ("marker:", "mark:", "did you mean 'marker'"),
    ],
)
def test_a_prompt_that_cannot_work_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_prompt(prompt_file(tmp_path, old, new))
    assert words in str(error.value)


def test_an_unknown_prompt_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"ds3(.|\n)*ds2-v1"):
        load_prompt("ds3")
