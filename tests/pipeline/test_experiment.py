"""The cells of an experiment: what a section `experiment` stands for."""

from __future__ import annotations

from typing import Any

import pytest

from tamis.core.errors import SettingsError
from tamis.core.settings import parse
from tamis.selection.settings import SelectionSettings, strategy_of
from tamis_pipelines.experiment import base_evaluations
from tamis_pipelines.settings import RunSettings

LLAMA, MISTRAL = "meta-llama/Llama-3.1-8B", "mistralai/Mistral-7B-v0.3"
BASIS: dict[str, Any] = {
    "work_dir": "work",
    "pool": {"sources": [{"name": "mine", "path": "s3://bucket/pool.jsonl"}]},
    "raters": [
        {"name": name, "backend": {"kind": "import", "path": f"s3://bucket/{name}.jsonl", "by": "id"}}
        for name in ("llama", "gpt")
    ],
}
RANDOM = {"strategy": "random", "size": 5}
MODELS = {"finetuning": {"epochs": 2}, "evaluation": {"suite": "quick"}}


def settings(**sections: Any) -> RunSettings:
    return parse(RunSettings, BASIS | sections, where="test")


def names(**sections: Any) -> list[str]:
    return [cell.name for cell in settings(**sections).cells]


def test_every_strategy_runs_for_every_size_and_seed_and_those_that_use_ratings_for_every_rater() -> None:
    grid = {"strategies": ["ds2", "random", "full"], "sizes": [10, 0.5], "seeds": [1, 2]}
    assert names(experiment=grid) == [
        *("ds2-10-llama-s1", "ds2-10-llama-s2", "ds2-10-gpt-s1", "ds2-10-gpt-s2"),
        *("ds2-0.5-llama-s1", "ds2-0.5-llama-s2", "ds2-0.5-gpt-s1", "ds2-0.5-gpt-s2"),
        *("random-10-s1", "random-10-s2", "random-0.5-s1", "random-0.5-s2"),
        *("full-s1", "full-s2"),
    ]


def test_a_cell_has_its_seed_in_selection_and_training_and_keeps_the_other_settings() -> None:
    grid = {"strategies": ["ds2"], "raters": ["gpt"], "sizes": [10], "seeds": [7]}
    (cell,) = settings(experiment=grid, **MODELS).cells
    assert cell.subset == SelectionSettings(name="ds2-10-gpt-s7", strategy="ds2", rater="gpt", size=10, seed=7)
    assert cell.finetuning is not None
    assert (cell.finetuning.seed, cell.finetuning.epochs, cell.finetuning.model) == (7, 2, LLAMA)


def test_base_models_are_trained_on_every_subset_and_evaluated_by_names_of_their_own() -> None:
    grid = {"strategies": ["random"], "sizes": [10], "models": [LLAMA, {"model": MISTRAL, "revision": "abc"}]}
    made = settings(experiment=grid, **MODELS)
    assert [cell.name for cell in made.cells] == ["random-10-s42", "random-10-s42-Mistral-7B-v0.3"]
    trained = [cell.finetuning for cell in made.cells if cell.finetuning]
    assert [(one.model, one.revision) for one in trained] == [(LLAMA, None), (MISTRAL, "abc")]
    bases = base_evaluations(made)
    assert [(base.name, base.model, base.revision, base.suite) for base in bases] == [
        ("base", LLAMA, None, "quick"),
        ("base-Mistral-7B-v0.3", MISTRAL, "abc", "quick"),
    ]


def test_the_base_that_is_evaluated_is_the_one_that_is_trained() -> None:
    given = {"subsets": [{"name": "few", "strategy": "random", "size": 10}]}
    made = settings(**given, finetuning={"model": MISTRAL, "revision": "abc"}, evaluation={"suite": "quick"})
    assert [(base.name, base.model, base.revision) for base in base_evaluations(made)] == [("base", MISTRAL, "abc")]
    other = {"suite": "quick", "model": LLAMA}
    with pytest.raises(SettingsError, match=f"evaluation.model is {LLAMA}, but finetuning.model is {MISTRAL}"):
        settings(**given, finetuning={"model": MISTRAL}, evaluation=other)


@pytest.mark.parametrize("name", ["base", "base-line", "base-Mistral-7B-v0.3"])
def test_a_subset_has_no_name_of_a_base_model_s_evaluation(name: str) -> None:
    listed = [{"name": name, "strategy": "random", "size": 10}]
    assert names(subsets=listed) == [name], "nothing is evaluated"
    with pytest.raises(SettingsError, match=f"the subset '{name}': base"):
        settings(subsets=listed, **MODELS)
    with pytest.raises(SettingsError, match=f"the subset '{name}-s1'"):
        settings(subsets=listed, experiment={"seeds": [1]}, **MODELS)


def test_a_subset_s_name_may_begin_like_base() -> None:
    assert names(subsets=[{"name": "baseline", "strategy": "random", "size": 10}], **MODELS) == ["baseline"]


def test_the_evaluation_of_a_base_model_keeps_the_name_by_which_the_report_knows_it() -> None:
    given: dict[str, Any] = {"subsets": [{"name": "few", "strategy": "random", "size": 10}]} | MODELS
    with pytest.raises(SettingsError, match=r"evaluation\.name is untrained"):
        settings(**given | {"evaluation": {"suite": "quick", "name": "untrained"}})


def test_a_larger_experiment_keeps_the_cells_of_a_smaller_one_as_they_were() -> None:
    small = {"strategies": ["ds2"], "raters": ["gpt"], "sizes": [10]}
    large = {"strategies": ["random", "ds2"], "sizes": [10, 20], "seeds": [42, 43], "models": [LLAMA, MISTRAL]}
    one, other = (settings(experiment=grid, **MODELS).cells for grid in (small, large))
    assert {cell.name: cell for cell in one}.items() <= {cell.name: cell for cell in other}.items()


def test_listed_subsets_run_for_every_seed_beside_the_grid() -> None:
    listed = [{"name": "near", "strategy": "knn", "size": 10, "k": 3}]
    made = settings(subsets=listed, experiment={"seeds": [1, 2]})
    assert [(cell.name, cell.subset.k, cell.subset.seed) for cell in made.cells] == [
        ("near-s1", 3, 1),
        ("near-s2", 3, 2),
    ]


def test_without_the_section_subsets_are_cells_as_they_stand() -> None:
    listed = [{"name": "any", "strategy": "random", "size": 10, "seed": 5}]
    (cell,) = settings(subsets=listed, **MODELS).cells
    assert (cell.name, cell.subset.seed) == ("any", 5)
    assert cell.finetuning is not None
    assert cell.finetuning.seed == 42


def test_the_pipeline_gets_each_cell_s_settings_and_the_shared_ones_once() -> None:
    grid = {"strategies": ["random"], "sizes": [10], "seeds": [1]}
    given = settings(experiment=grid, **MODELS).arguments()
    assert given["cells"] == [
        {
            "subset": {"name": "random-10-s1", "strategy": "random", "size": 10, "variant": "published", "seed": 1},
            "finetuning": {"epochs": 2, "model": LLAMA, "seed": 1},
        }
    ]
    assert given["bases"] == [{"suite": "quick", "name": "base", "model": LLAMA}]
    assert given["evaluation"] == {"suite": "quick"}
    assert {"subsets", "experiment", "finetuning"}.isdisjoint(given)


def test_the_scores_that_a_grid_s_strategies_rank_by_are_made_once() -> None:
    grid = {"strategies": ["perplexity", "deita"], "sizes": [10, 20]}
    assert settings(experiment=grid).scores == ("perplexity", "deita")
    assert settings(experiment=grid | {"variant": "ds2-paper"}).scores == ("perplexity",)


@pytest.mark.parametrize(
    "strategy", ["full", "random", "length", "knn", "less", "alpagasus", "deita", "ds2-raw", "ds2"]
)
@pytest.mark.parametrize("variant", ["published", "ds2-paper"])
def test_what_is_repeated_by_rater_are_the_strategies_that_order_by_a_rater_s_scores(
    strategy: str, variant: str
) -> None:
    scores = {"name": "m", "backend": {"kind": "transformers", "model": "m"}}
    tasks = {"tasks": [{"name": "t", "path": "s3://b/t.jsonl"}]}
    grid = {"strategies": [strategy], "sizes": [10], "variant": variant}
    made = settings(experiment=grid, raters=[*BASIS["raters"], scores], influence=tasks).cells
    ordered = strategy_of(made[0].subset).order
    assert len(made) == (3 if {"raw_scores", "scores"} & set(ordered) else 1)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({}, "no subset"),
        ({"experiment": {"strategies": ["ds2"]}}, "strategies need sizes"),
        ({"experiment": {"strategies": ["ds2"], "sizes": [5], "raters": ["me"]}}, "no rater 'me'; allowed: llama, gpt"),
        ({"experiment": {"strategies": ["ds3"], "sizes": [5]}}, "experiment.strategies.0: seen 'ds3'"),
        (
            {"experiment": {"strategies": ["ds2"], "sizes": [5], "seeds": [1, 1]}},
            "experiment: seeds has 1 twice; give it once",
        ),
        (
            {"experiment": {"strategies": ["random"], "sizes": [5], "raters": ["me"]}},
            "experiment.raters: no rater 'me'; allowed: llama, gpt",
        ),
        (
            {"experiment": {"strategies": ["random"], "sizes": [5], "models": [LLAMA, MISTRAL]}},
            "experiment.models has no effect",
        ),
        (
            {"experiment": {"strategies": ["random"], "sizes": [5]}, "subsets": [{"name": "random-5", **RANDOM}]},
            "two subsets .*'random-5-s42'",
        ),
        (
            {"experiment": {"seeds": [1, 2]}, "subsets": [{"name": "a", "seed": 7, **RANDOM}]},
            "subsets.a.seed is 7, but every cell has a seed of experiment.seeds, which are 1, 2; leave it out, or list",
        ),
        (
            MODELS | {"experiment": {"strategies": ["random"], "sizes": [5]}, "finetuning": {"seed": 9}},
            "finetuning.seed is 9, but every cell has a seed of experiment.seeds, which are 42",
        ),
        ({"subsets": [{"name": "a", "strategy": "ds2", "size": 5}]}, "'a' .* a rater; allowed: llama, gpt"),
    ],
)
def test_an_experiment_that_cannot_be_run_is_refused_before_it_starts(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        settings(**sections)


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ([{"model": LLAMA, "revision": one} for one in "ab"], rf"{LLAMA} \(a\) and {LLAMA} \(b\)"),
        (["one/Model", "other/Model"], "one/Model and other/Model"),
        ([MISTRAL, MISTRAL], f"{MISTRAL} and {MISTRAL}"),
    ],
)
def test_base_models_whose_cells_would_have_one_name_are_refused(models: list[Any], said: str) -> None:
    with pytest.raises(SettingsError, match=f"experiment.models: {said} would give cells"):
        settings(experiment={"strategies": ["random"], "sizes": [5], "models": models}, **MODELS)


def test_seeds_that_an_experiment_has_may_be_named_beside_it() -> None:
    listed = [{"name": "a", "seed": 7, **RANDOM}]
    sections = MODELS | {"finetuning": {"preset": "paper", "epochs": 2}}  # a preset has a seed too
    assert names(subsets=listed, experiment={"seeds": [7, 8]}, **sections) == ["a-s7", "a-s8"]


@pytest.mark.parametrize("folder", ["s3://bucket/run", "gs://bucket/run"])
def test_a_run_works_in_a_folder_of_this_machine(folder: str) -> None:
    with pytest.raises(SettingsError, match=f"work_dir.*'{folder}'"):
        settings(subsets=[{"name": "a", **RANDOM}], work_dir=folder)


JUDGING: dict[str, Any] = {
    "prompts": [{"name": "set", "path": "s3://bucket/prompts.jsonl"}],
    "judge": {"backend": {"kind": "openai", "model": "gpt-4o-mini"}},
}


def test_every_cell_is_judged_against_the_opponent_of_its_base_model() -> None:
    grid = {"strategies": ["random"], "sizes": [10], "models": [LLAMA, MISTRAL]}
    ours = {"kind": "answers", "name": "given", "path": "s3://bucket/answers.jsonl"}
    other = {"kind": "artifact", "path": "s3://bucket/lima"}
    made = settings(experiment=grid, judging=JUDGING | {"against": ours, "opponents": {MISTRAL: other}}, **MODELS)
    assert made.judging is not None
    first, second = (made.judging.of(model) for model in (LLAMA, MISTRAL))
    assert (first.against, second.against) == (made.judging.against, made.judging.opponents[MISTRAL])
    judged = [cell["judging"] for cell in made.arguments()["cells"]]
    assert [one["against"]["kind"] for one in judged] == ["answers", "artifact"]
    assert all("opponents" not in one for one in judged)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"judging": JUDGING}, "judging .*finetuning"),
        ({"judging": JUDGING, **MODELS}, f"no opponent for the base model {LLAMA}"),
        (
            {"judging": JUDGING | {"model": {"kind": "model", "model": "m"}}, **MODELS},
            "every cell's own model is judged",
        ),
    ],
)
def test_judging_that_no_cell_can_have_is_refused(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        settings(experiment={"strategies": ["random"], "sizes": [10]}, **sections)


def test_subsets_and_grids_may_use_the_scores_of_all_raters_together() -> None:
    sections: dict[str, Any] = {
        "subsets": [{"name": "a", "strategy": "ds2", "size": 5, "rater": "combined"}],
        "experiment": {"strategies": ["ds2"], "sizes": [10], "raters": ["combined", "gpt"]},
    }
    made = settings(curation={"combine": True}, **sections)
    assert [cell.subset.rater for cell in made.cells] == ["combined", "combined", "gpt"]
    with pytest.raises(SettingsError, match=r"no rater 'combined'(.|\n)*allowed: llama, gpt"):
        settings(**sections)


def service(name: str, **own: Any) -> dict[str, Any]:
    backend = {"kind": "openai", "model": "m", "base_url": "http://here/v1"} | own.pop("backend", {})
    return {"name": name, "backend": backend} | own


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        ({}, {}, False),
        ({}, {"seed": 1}, False),
        ({}, {"sample": 0.5}, False),
        ({}, {"backend": {"concurrency": 3, "patience": 5}, "max_failure_share": 0.5}, False),
        ({}, {"backend": {"kind": "openai-batch", "poll": 5}}, False),
        ({"store": "s"}, {"store": "s", "backend": {"base_url": "http://there/v1"}}, False),
        ({"temperature": 1}, {"temperature": 1, "seed": 1}, True),
        ({}, {"temperature": 0.5}, True),
        ({}, {"prompt": "other"}, True),
        ({}, {"backend": {"model": "other"}}, True),
        ({}, {"backend": {"base_url": "http://there/v1"}}, True),
        ({}, {"backend": {"extra": {"a": 1}}}, True),
        ({"backend": {"structured": "none"}}, {}, True),
    ],
)
def test_raters_that_have_the_same_answers_are_refused(
    one: dict[str, Any], other: dict[str, Any], differ: bool
) -> None:
    """Curation would take them for raters who agree in everything."""
    subsets = [{"name": "any", "strategy": "random", "size": 10}]
    raters = [service("one", **one), service("other", **other)]
    if differ:
        assert len(settings(subsets=subsets, raters=raters).raters) == 2
        return
    with pytest.raises(SettingsError) as raised:
        settings(subsets=subsets, raters=raters)
    assert raised.value.code == "settings"
    assert "'one' and 'other'" in raised.value.problem
