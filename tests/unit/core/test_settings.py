"""Settings: what a wrong one says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from tamis.core.errors import SettingsError
from tamis.core.settings import (
    Settings,
    hash_of,
    load,
    load_yaml,
    parse,
    said,
    shipped_or_own,
    understood,
    with_overrides,
)
from tamis.judging.settings import JudgingSettings
from tamis.llm.settings import PriceSettings
from tamis.rating.settings import RatingSettings
from tamis_pipelines.budget import BudgetSettings
from tamis_pipelines.rates import RatesSettings


class Cat(Settings):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(Settings):
    kind: Literal["dog"]
    tricks: tuple[str, ...] = ()


class House(Settings):
    rooms: int = Field(3, ge=1)
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = Field([])
    guest: Cat | None = None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"roms": 2}, ["roms: unknown setting", "did you mean 'rooms'?"]),
        ({"zzz": 2}, ["zzz: unknown setting", "allowed: rooms, pets, guest"]),
        ({"rooms": "many"}, ["rooms: seen 'many'", "valid integer"]),
        ({"rooms": 0}, ["rooms: seen 0", "greater than or equal to 1"]),
        ({"guest": {"live": 3}}, ["guest.live: unknown setting", "did you mean 'lives'?"]),
        (
            {"pets": [{"kind": "cat"}, {"kind": "dog", "trick": []}]},
            ["pets.1.trick: unknown setting", "did you mean 'tricks'?"],
        ),
        ({"pets": [{"kind": "cat", "rooms_": 1}]}, ["pets.0.rooms_: unknown setting", "did you mean 'rooms'?"]),
        ({"pets": [{"kind": "cow"}]}, ["pets.0.kind: seen 'cow'; allowed: cat, dog"]),
        ({"pets": [{"lives": 9}]}, ["pets.0.kind: missing; allowed: cat, dog"]),
        ({"pets": "cat"}, ["pets: seen 'cat'", "list", "[first, second]"]),
        ({"guest": "cat"}, ["guest: seen 'cat'", "section", "{setting: value}"]),
        ({"rooms": 0, "roms": 1}, ["2 wrong settings"]),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_seen_and_what_is_allowed(
    values: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(SettingsError) as raised:
        parse(House, values, where="house.yaml")
    for word in ["house.yaml", *words]:
        assert word in str(raised.value)


def test_whole_numbers_may_come_as_floats_as_kubeflow_sends_them() -> None:
    assert parse(House, {"rooms": 4.0, "pets": [{"kind": "cat", "lives": 7.0}]}, where="x").rooms == 4


def test_null_reaches_a_pipeline_s_step_though_kfp_has_no_word_for_it() -> None:
    class Service(Settings):
        key: str | None = "KEY"
        more: dict[str, float | None] = Field({})
        note: str | None = None

    plain, without = Service(key="MINE", note=None), Service(key=None, more={"temperature": None, "top_p": 1})
    assert said(plain) == {"key": "MINE"}
    assert "None" not in str(said(without))
    for settings in (plain, without):
        assert parse(Service, understood(said(settings)), where="here") == settings


@pytest.mark.parametrize(("text", "seen"), [(None, "house.yaml"), ("a: [", "YAML"), ("- 1", "list")])
def test_a_file_that_holds_no_settings_says_why(tmp_path: Path, text: str | None, seen: str) -> None:
    file = tmp_path / "house.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SettingsError, match=seen) as caught:
        load(House, file)
    assert str(file) in caught.value.problem


@pytest.mark.parametrize(
    ("data", "action"),
    [
        ("rooms: 1\n".encode("utf-16"), "iconv -f UTF-16"),
        ("rooms: 1\n".encode("utf-16-le"), "iconv -f UTF-16LE"),
        ("name: Größe\n".encode("latin-1"), "iconv"),
        (b"rooms: " + b"[" * 100_000, "correct"),
    ],
)
def test_a_file_in_another_encoding_or_too_deep_says_what_to_do(tmp_path: Path, data: bytes, action: str) -> None:
    (tmp_path / "house.yaml").write_bytes(data)
    with pytest.raises(SettingsError) as refused:
        load(House, tmp_path / "house.yaml")
    assert refused.value.code == "settings"
    assert action in refused.value.action


def test_a_byte_order_mark_is_no_setting(tmp_path: Path) -> None:
    (tmp_path / "house.yaml").write_text("rooms: 2\n", encoding="utf-8-sig")
    assert load(House, tmp_path / "house.yaml").rooms == 2


def test_an_own_file_that_is_nowhere_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError) as refused:
        shipped_or_own(tmp_path, "own/prompt.yaml", kind="prompt", where="prompt")
    assert refused.value.code == "settings"
    assert str(tmp_path) in refused.value.problem


def test_overrides_reach_into_sections_and_are_yaml() -> None:
    values = {"rooms": 1, "guest": {"lives": 2}}
    changed = with_overrides(values, ["guest.lives=5", "pets=[{kind: cat}]"])
    assert changed == {"rooms": 1, "guest": {"lives": 5}, "pets": [{"kind": "cat"}]}
    assert values["guest"] == {"lives": 2}


def test_dates_and_names_are_the_text_that_was_written(tmp_path: Path) -> None:
    text = (
        "api: 2024-10-21\nat: 2024-10-21T10:00:00Z\nno: day 2024-13-45\n2: two\nsame: &same {7: x}\nmore: {<<: *same}"
    )
    (tmp_path / "dates.yaml").write_text(text)
    values = with_overrides(
        load_yaml(tmp_path / "dates.yaml"), ["azure.api_version=2024-10-21", "map={yes: 2024-13-45}"]
    )
    assert values == {
        "api": "2024-10-21", "at": "2024-10-21T10:00:00Z", "no": "day 2024-13-45", "2": "two", "same": {"7": "x"},
        "more": {"7": "x"}, "azure": {"api_version": "2024-10-21"}, "map": {"yes": "2024-13-45"},
    }  # fmt: skip


def test_a_section_with_nothing_in_it_takes_overrides() -> None:
    assert with_overrides({"guest": None}, ["guest.lives=5"]) == {"guest": {"lives": 5}}


def test_an_override_changes_one_of_two_sections_that_an_alias_makes_the_same(tmp_path: Path) -> None:
    (tmp_path / "pods.yaml").write_text("rating: &gpu {node: {gpus: 1}}\ntraining: *gpu\nevaluation: {<<: *gpu}")
    values = with_overrides(load_yaml(tmp_path / "pods.yaml"), ["training.node.gpus=8"])
    assert [values[pod]["node"]["gpus"] for pod in ("rating", "training", "evaluation")] == [1, 8, 1]


@pytest.mark.parametrize("override", ["rooms", "rooms.x=1", "rooms=[1"])
def test_an_override_that_makes_no_sense_is_refused(override: str) -> None:
    with pytest.raises(SettingsError, match="--set"):
        with_overrides({"rooms": 1}, [override])


def test_equal_values_have_equal_hashes_whatever_the_order_of_keys() -> None:
    assert hash_of({"a": 1, "b": [1, 2]}) == hash_of({"b": [1, 2], "a": 1}) != hash_of({"a": 1, "b": [2, 1]})


@pytest.mark.parametrize(
    ("text", "line", "name", "first"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a", 1),
        ("pool:\n  sources:\n    - {name: x, path: y, name: z}\n", 3, "name", 3),
        ("outer: {1: a, '1': b}\n", 1, "1", 1),
    ],
)
def test_a_name_that_is_set_twice_is_refused_with_both_lines(
    tmp_path: Path, text: str, line: int, name: str, first: int
) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_yaml(tmp_path / "s.yaml")
    assert f"s.yaml, line {line}: '{name}'" in caught.value.problem
    assert f"line {first}" in caught.value.problem.partition(name)[2]


def test_what_is_merged_may_be_overridden(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("base: &base {a: 1, b: 2}\nother: {<<: *base, a: 3}\nthird: {<<: [*base], b: 4}\n")
    assert load_yaml(tmp_path / "s.yaml") == {
        "base": {"a": 1, "b": 2},
        "other": {"a": 3, "b": 2},
        "third": {"a": 1, "b": 4},
    }


@pytest.mark.parametrize("text", ["a: &a [1, *a]", "a: &a {b: {c: *a}}", "a: &a {<<: *a}", "&a {b: *a}"])
def test_what_holds_itself_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.yaml").write_text(f"# settings\n{text}\n")
    with pytest.raises(SettingsError) as caught:
        load_yaml(tmp_path / "s.yaml")
    assert "s.yaml, line 2: '*a'" in caught.value.problem
    with pytest.raises(SettingsError):
        with_overrides({}, [f"x={{{text}}}"])
    (tmp_path / "s.yaml").write_text("a: &a [1]\nb: {c: *a, d: *a}\n")
    assert load_yaml(tmp_path / "s.yaml") == {"a": [1], "b": {"c": [1], "d": [1]}}


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize(
    ("model", "values", "name"),
    [
        (BudgetSettings, {}, "max_cost"),
        (RatingSettings, {"name": "r", "backend": {"kind": "openai", "model": "m"}}, "max_cost"),
        (JudgingSettings, {}, "max_cost"),
        (PriceSettings, {"input": 1, "output": 1}, "input"),
        (PriceSettings, {"input": 1, "output": 1}, "output"),
        (PriceSettings, {"input": 1, "output": 1}, "cached_input"),
        (PriceSettings, {"input": 1, "output": 1}, "reasoning"),
        (RatesSettings, {}, "gpu_hour"),
        (RatesSettings, {}, "input_price"),
    ],
)
def test_money_is_finite(model: type[Settings], values: dict[str, Any], name: str, value: float) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(model, values | {name: value}, where="s.yaml")
    assert f"  {name}: seen {value}; input should be a finite number" in caught.value.problem
