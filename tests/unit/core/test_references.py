"""What settings refer to: found by type, wherever it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BeforeValidator, Field

from tamis.core.references import (
    DataPath,
    HubDataset,
    HubModel,
    LocalFolder,
    Reference,
    StoreUri,
    To,
    reaches_pods,
    references_of,
    walk,
)
from tamis.core.settings import Settings


class Inner(Settings):
    name: str
    model: HubModel | None = None


class Outer(Settings):
    title: str = "t"
    files: Annotated[tuple[DataPath, ...], BeforeValidator(tuple)] = ()
    one_or_more: DataPath | tuple[DataPath, ...] | None = Field(None, min_length=1)
    listed: list[Inner] = Field([])
    named: dict[str, Inner] = Field({})


def test_what_is_referred_to_is_found_in_lists_mappings_and_unions() -> None:
    inner = Inner(name="a", model="org/m")
    outer = Outer(files=("x", "y"), one_or_more="z", listed=[inner], named={"k": inner})
    found = {field.where: (field.value, field.reference and field.reference.to) for field in walk(outer, "s")}
    assert found == {
        "s.title": ("t", None),
        "s.files.0": ("x", "data"),
        "s.files.1": ("y", "data"),
        "s.one_or_more": ("z", "data"),
        "s.listed.a.name": ("a", None),
        "s.listed.a.model": ("org/m", "model"),
        "s.named.k.name": ("a", None),
        "s.named.k.model": ("org/m", "model"),
    }
    assert next(field.owner for field in walk(outer) if field.where == "listed.a.model") == inner


def test_a_setting_refers_to_one_kind_of_thing() -> None:
    class Both(Settings):
        place: HubDataset | LocalFolder

    with pytest.raises(TypeError):
        references_of(Both)


def test_types_change_nothing_of_a_setting_s_values() -> None:
    class Plain(Settings):
        place: StoreUri | None = Field(None, min_length=2)

    assert Plain(place="ab").model_dump() == {"place": "ab"}
    with pytest.raises(ValueError, match="at least 2"):
        Plain(place="a")


@pytest.mark.parametrize(
    ("to", "text", "seen"),
    [
        ("data", "data/a.jsonl", False),
        ("data", "s3://data/a.jsonl", True),
        ("data", "/cache/claim/a.jsonl", True),
        ("store", "ratings", False),
        ("store", "s3://data/ratings", True),
        ("model", "org/m", True),
        ("model", "./m", False),
        ("model", "a/b/c", False),
        ("model", "s3://data/m", False),
        ("model", "here", False),  # a folder of this machine
        ("tokenizer", "../m", False),
        ("dataset", "org/set", True),
        ("shipped", "zero2", True),
        ("shipped", "own.yaml", False),
        ("shipped", "s3://data/own.yaml", False),
        ("folder", "tasks", False),
        ("folder", "/cache/tasks", True),
        ("work", "runs/first", True),  # of local runs alone
    ],
)
def test_what_pods_can_use(to: To, text: str, seen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert reaches_pods(Reference(to), text) is seen
