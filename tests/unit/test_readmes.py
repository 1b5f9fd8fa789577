"""READMEs of the stages say what the code says: tables made from it, settings and their defaults."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from scripts import tables

from tamis.core.settings import all_fields, models_in
from tamis.core.stages import Stage, all_stages

ROOT = Path(__file__).parents[2]
STAGES = [stage for stage in all_stages().values() if stage.command != "merge-ratings"]  # it has no settings
_BY_RATER = {"rater"}  # a key of the file that stands for settings


def text_of(stage: Stage) -> str:
    return (ROOT / "components/tamis" / stage.room / "README.md").read_text()


def settings_in(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in all_fields(model).items():
        yield prefix + name, field
        for inner in models_in(field.annotation):
            yield from settings_in(inner, f"{prefix}{name}.")


def rows_of(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """Names, and defaults, of each row of the tables of settings."""
    inside = False
    for line in text.splitlines():
        inside = line.startswith("| setting | default") or (inside and line.startswith("|"))
        if inside and "`" in line.split("|")[1]:
            names, default = re.split(r"(?<!\\)\|", line)[1:3]
            yield re.findall(r"`([^`]+)`", names), [part.strip(" `") for part in re.split(r"[,;] ", default)]


def agrees(told: list[str], field: FieldInfo) -> bool:
    """Whether one of the words of a default is this one; of none, texts and sections anything may be told."""
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    if isinstance(default, (bool, str)):
        return str(default).lower() in (word.lower() for word in told)
    if isinstance(default, (int, float)):
        return default in [number for word in told if (number := _number(word)) is not None]
    return True


def _number(word: str) -> float | None:
    try:
        return float(word.replace(",", ""))
    except ValueError:
        return None


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.command)
def test_every_setting_of_a_table_is_one_and_has_the_default_that_is_told(stage: Stage) -> None:
    known = list(settings_in(stage.settings_model))
    wrong = []
    for names, told in rows_of(text_of(stage)):
        for name in set(names) - _BY_RATER:
            meant = [field for known_name, field in known if f".{known_name}".endswith(f".{name}")]
            if not any(agrees(told, field) for field in meant):
                wrong.append(f"{name}: {told}")
    assert wrong == []


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.command)
def test_every_setting_of_a_stage_stands_in_its_readme(stage: Stage) -> None:
    text = text_of(stage)
    missing = [
        name for name, field in all_fields(stage.settings_model).items()
        if f"`{name}`" not in text and f"`{name}." not in text
    ]  # fmt: skip
    assert missing == []


@pytest.mark.parametrize("name", list(tables.TABLES))
def test_tables_that_are_made_from_the_code_are_current(name: str) -> None:
    place, table = tables.TABLES[name]
    text = (ROOT / place).read_text()
    assert tables.with_table(text, name, table()) == text, "run `make tables`"


def test_a_changed_default_is_found() -> None:
    settings: Any = next(stage for stage in STAGES if stage.command == "neighbors").settings_model
    field = settings.model_fields["k"]
    assert agrees([str(field.default)], field)
    assert not agrees([str(field.default + 1)], field)
