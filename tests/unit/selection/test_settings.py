"""Settings of a subset."""

from __future__ import annotations

from typing import Any

import pytest

from tamis.core.errors import SettingsError
from tamis.core.settings import parse
from tamis.selection.settings import SelectionSettings
from tamis.selection.strategies import STRATEGIES


def parsed(**values: Any) -> SelectionSettings:
    return parse(SelectionSettings, {"name": "s", "strategy": "random", "size": 10} | values, where="test")


@pytest.mark.parametrize(("given", "kept"), [(1000, 1000), (1000.0, 1000), (1.0, 1), (0.033, 0.033)])
def test_whole_numbers_that_come_as_floats_are_numbers(given: float, kept: float) -> None:
    settings = parsed(size=given, sources={"a": given})
    assert [(type(v), v) for v in (settings.size, settings.sources["a"])] == [(type(kept), kept)] * 2


@pytest.mark.parametrize("bad", [0, -5, 1.5, True, "many", float("nan"), float("inf")])
def test_other_amounts_are_refused_with_what_is_allowed(bad: Any) -> None:
    for field in ({"size": bad}, {"sources": {"a": bad}}):
        with pytest.raises(SettingsError, match="a whole number of samples, or a share between 0 and 1"):
            parsed(**field)


def test_an_unknown_strategy_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"strategy: seen 'best'") as caught:
        parsed(strategy="best")
    assert all(f"'{name}'" in str(caught.value) for name in STRATEGIES)


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "a b"])
def test_a_name_must_be_usable_as_a_folder(name: str) -> None:
    with pytest.raises(SettingsError, match="name: seen"):
        parsed(name=name)


def test_every_strategy_but_full_needs_a_size() -> None:
    for strategy in set(STRATEGIES) - {"full"}:
        with pytest.raises(SettingsError, match=f"the strategy {strategy} needs a size"):
            parsed(strategy=strategy, size=None)


@pytest.mark.parametrize("extra", [{"size": 5}, {"size": None, "sources": {"a": 1}}])
def test_full_takes_neither_size_nor_sources(extra: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="full takes every sample"):
        parsed(**({"strategy": "full"} | extra))


def test_one_excluded_file_may_be_given_without_a_list() -> None:
    assert parsed(exclude="a.txt").exclude == ("a.txt",)
    assert parsed(exclude=["a.txt", "b.csv"]).exclude == ("a.txt", "b.csv")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"strategy": "ds2", "variant": "ds2-paper"}, r"the strategy ds2 .*\bvariant"),
        ({"strategy": "knn", "task": "mmlu"}, "task .*the strategy less"),
        (
            {"strategy": "less", "task": "mmlu", "variant": "ds2-paper"},
            "task .* less .*as published",
        ),
        ({"strategy": "ds2-raw", "rank_by": "mean"}, "rank_by: mean .* ds2 .* ds2-raw .*class"),
        ({"strategy": "ds2", "rank_by": "median"}, "rank_by: seen 'median'"),
        ({"strategy": "deita", "max_similarity": 1.1}, "less than or equal to 1"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        parsed(**values)
