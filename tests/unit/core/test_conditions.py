"""Conditions on the values of a row."""

from __future__ import annotations

from typing import Any

import pytest

from tamis.core import conditions
from tamis.core.errors import InputError, SettingsError


@pytest.mark.parametrize(
    ("wanted", "met", "unmet"),
    [
        ("en", ["en"], ["EN", "", None, 1]),
        (1, [1, 1.0, "1", "1.0", " 1"], [2, "one", None, "nan"]),
        (True, [True, "true", "TRUE"], [False, "yes", None]),
        (["web", 3], ["web", 3, "3.0"], ["books", None, 4]),
        ({"in": ["a", "b"]}, ["a", "b"], ["c", None]),
        ({">=": 4, "<": 9}, [4, 8.9, "4", "8.999999999999999999"], [3.9, 9, "9", None, "high", [4], True]),
        ({">": "2024-06"}, ["2024-07-01"], ["2024-05-31", None, 2025]),
        ({"not": ""}, ["x", None, 0], [""]),
        ({"not": ["a", "b"]}, ["c", None], ["a", "b"]),
        ({"not": {">": 3}}, [3, None, "x"], [4]),
        ({"length": 3}, ["abc", [1, 2, 3], {"a": 1, "b": 2, "c": 3}], ["ab", 3, None]),
        ({"length": {">": 2, "<=": 4}}, ["abc", "abcd"], ["ab", "abcde", None]),
        ({"matches": r"^\p{Lu}"}, ["Über", "A"], ["über", "", None, 5]),
        ({"matches": "b", "length": {"<": 3}}, ["ab"], ["abc", "a"]),
    ],
)
def test_a_condition_is_met_by_these_values_and_by_no_others(wanted: Any, met: list[Any], unmet: list[Any]) -> None:
    condition = conditions.conditions({"field": wanted})["field"]
    assert [value for value in met if not condition(value)] == []
    assert [value for value in unmet if condition(value)] == []


@pytest.mark.parametrize(
    "wanted",
    [
        {"above": 3}, {}, [], {"in": "a"}, {"in": []}, {"length": "3"}, {"length": True}, {"length": {"longer": 3}},
        {"matches": "("}, {"matches": 3}, {">": None}, {">": [1]}, None, [[1]], {"not": {"in": 3}},
    ],
)  # fmt: skip
def test_a_condition_that_means_nothing_is_a_settings_error_that_names_it(wanted: Any) -> None:
    with pytest.raises(SettingsError, match=r"where\.field"):
        conditions.conditions({"field": wanted})


def test_a_search_without_an_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "_SECONDS", 0.2)
    condition = conditions.conditions({"text": {"matches": "^(a|aa)+$"}})["text"]
    with pytest.raises(InputError, match=r"where\.text\.matches"):
        condition("a" * 60 + "b")
