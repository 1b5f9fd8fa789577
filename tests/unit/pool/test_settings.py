"""Settings of the pool say exactly what is wrong with a source."""

from __future__ import annotations

from typing import Any

import pytest

from tamis.core.errors import SettingsError
from tamis.core.settings import parse
from tamis.pool import recipes
from tamis.pool.settings import PoolSettings, Source
from tamis.pool.sources import recipe_of, resolve
from tests.unit.pool.making import settings_of


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({}, r"path, dataset and recipe"),
        ({"path": "a.jsonl", "dataset": "b"}, "not path and dataset"),
        ({"recipe": "alpaca"}, "'alpaca'; allowed: .*stanford_alpaca"),
        ({"recipe": "dolly", "schema": "messages"}, "'schema' .*'recipe'"),
        ({"recipe": "dolly", "fields": {"output": "x"}}, "'fields' .*'recipe'"),
        ({"path": "a.jsonl", "split": "train"}, "'split' .*'path'"),
        ({"path": "a.jsonl", "seed": 1}, "'seed' .*`limit`"),
        ({"path": "a.jsonl", "limit": 0}, "greater than or equal to 1"),
        ({"path": "a.jsonl", "fields": {"question": "q"}}, "question; allowed: messages:"),
        ({"path": "a.jsonl", "schema": "messages", "fields": {"prompt": "q"}}, "allowed: messages: messages, role"),
        ({"path": "a.jsonl", "fields": {"prompt": "q", "output": "a"}}, "prompt, output; allowed: messages:"),
        ({"path": "a.jsonl", "schema": "sharegpt"}, "'auto', 'messages', 'conversations'"),
        ({"path": "a.jsonl", "schemas": "messages"}, "unknown setting; did you mean 'schema'"),
    ],
)
def test_a_wrong_source_is_explained(source: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        settings_of(source)


def test_names_are_unique() -> None:
    with pytest.raises(SettingsError, match=r"\ba;"):
        settings_of({"name": "a", "path": "1.jsonl"}, {"name": "a", "path": "2.jsonl"})


def test_a_pool_has_at_least_one_source() -> None:
    with pytest.raises(SettingsError, match="at least 1 item"):
        settings_of()


def test_settings_survive_the_way_through_a_manifest() -> None:
    settings = settings_of({"path": "a.jsonl", "schema": "messages", "where": {"n": 3}})
    dumped = settings.model_dump(mode="json")
    assert dumped["sources"][0]["schema"] == "messages"
    assert parse(PoolSettings, dumped, where="again") == settings


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_a_valid_source(name: str) -> None:
    recipe = recipe_of(name)
    resolved = resolve(Source(name="x", recipe=name))
    assert resolved.source.dataset == recipe.source["dataset"]
    assert resolved.source.schema_ != "auto"
    assert resolved.recipe == recipe


def test_the_papers_five_recipes_have_its_300_932_samples() -> None:
    five = ("flan_v2", "oasst1", "wizardlm", "dolly", "stanford_alpaca")
    assert sum(recipe_of(name).samples for name in five) == recipe_of("ds2_pool").samples == 300_932


def test_what_a_user_sets_goes_before_what_the_recipe_sets() -> None:
    source = resolve(Source(name="x", recipe="wizardlm", limit=10, revision="v1", keep=["idx"])).source
    assert (source.limit, source.seed, source.revision, source.keep) == (10, 42, "v1", ["idx"])


def test_a_seed_for_a_recipe_without_a_limit_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"recipe dolly.*\n.*'seed' .*`limit`"):
        resolve(Source(name="x", recipe="dolly", seed=1))


def test_without_a_limit_nothing_is_drawn_from_a_recipe() -> None:
    source = resolve(Source(name="x", recipe="flan_v2", limit=None)).source
    assert (source.limit, source.seed) == (None, None)
    with pytest.raises(SettingsError, match=r"'seed' .*`limit`"):
        resolve(Source(name="x", recipe="flan_v2", limit=None, seed=1))
