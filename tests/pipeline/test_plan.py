"""`tamis plan`: counts, and estimates that follow from the stated rates."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from tamis.cli import main
from tamis.core.errors import InputError, SettingsError, StorageError
from tamis.core.settings import parse
from tamis.rating.settings import RatingSettings
from tamis.rating.stage import run as run_rating
from tamis_pipelines.plan import Plan, plan
from tamis_pipelines.plan_text import as_text
from tamis_pipelines.settings import RunSettings, load_run
from tests.artifacts import conversation, make_pool
from tests.llm_server import Reaction, Server, completion
from tests.pipeline.test_experiment import LLAMA, MODELS, settings

ROOT = Path(__file__).parents[2]
RATES = {"samples": 1_000, "tokens_per_sample": 100, "trained_tokens_per_second": 1_000, "gpu_hour": 3}


def planned(**sections: Any) -> Plan:
    return plan(settings(**{"rates": RATES, **sections}))


def hours(made: Plan, step: str) -> float:
    (line,) = [line for line in made.lines if line.step == step]
    assert line.money == pytest.approx(3 * line.gpu_hours)
    return line.gpu_hours


def test_the_paper_s_experiment_is_thirty_six_cells_on_its_whole_pool() -> None:
    made = plan(load_run(ROOT / "examples/paper.yaml"))
    assert made.samples == 300_932
    assert len(made.cells) == 2 * (6 + 4 * 3)
    counts = {line.step: line.count for line in made.lines}
    assert (counts["finetune"], counts["evaluate"], counts["judge"]) == (36, 38, 36)
    assert counts["answer prompts"] == 38, "each opponent answers once"
    assert {"rate by llama", "rate by mistral", "rate by gpt", "score for perplexity", "score for less"} <= set(counts)
    assert counts["curate"] == counts["neighbors"] == counts["pool"] == 1, "what cells share is done once"


def test_training_takes_its_tokens_at_the_stated_rate() -> None:
    grid = {"strategies": ["random", "full"], "sizes": [500, 0.1], "seeds": [1, 2]}
    made = planned(experiment=grid, **MODELS)
    tokens = 2 * (500 + 100 + 1_000) * 100 * 2  # seeds, samples, tokens of each, epochs
    assert hours(made, "finetune") == pytest.approx(tokens / 1_000 / 3600)


def test_the_size_that_a_model_s_name_tells_counts_in_proportion() -> None:
    grid = {
        "strategies": ["random"],
        "sizes": [500],
        "models": [LLAMA, "org/Small-0.8B", "org/Tiny-80M-v2", "org/None"],
    }
    whole, small, tiny, unknown = (hours for _, hours in planned(experiment=grid, **MODELS).cells)
    assert (small, tiny, unknown) == (pytest.approx(whole / 10), pytest.approx(whole / 100), whole)


def test_imported_ratings_cost_nothing_and_local_raters_take_gpus() -> None:
    raters = [
        {"name": "given", "backend": {"kind": "import", "path": "s3://b/r.jsonl", "by": "id"}},
        {"name": "local", "backend": {"kind": "transformers", "model": "org/Rater-8B"}},
    ]
    grid = {"strategies": ["random"], "sizes": [5]}
    pods = {"rating_shards": {"local": 4}}
    made = planned(raters=raters, experiment=grid, rates=RATES | {"rated_per_second": 10}, kubeflow=pods)
    assert {line.step: line.count for line in made.lines if line.step.startswith("rate ")} == {
        "rate by given": 1,
        "rate by local": 4,
    }
    assert hours(made, "rate by given") == 0
    assert hours(made, "rate by local") == pytest.approx(1_000 / 10 / 3600)
    assert "finetune" not in {line.step for line in made.lines}


@pytest.mark.parametrize(
    ("rater", "sent", "answered"),
    [
        ({"name": "own", "backend": {"kind": "openai", "model": "m"}, "price": {"input": 3, "output": 0}}, 3, 0),
        ({"name": "half", "backend": {"kind": "openai-batch", "model": "m"}, "price": {"input": 1, "output": 2}}, 1, 2),
        ({"name": "shipped", "rater": "gpt-4o-mini"}, 0.15, 0.60),
        ({"name": "assumed", "backend": {"kind": "openai", "model": "m"}}, 7, 8),
    ],
)
def test_a_rater_that_is_a_service_costs_what_its_settings_say_else_the_rates(
    rater: dict[str, Any], sent: float, answered: float
) -> None:
    rates = RATES | {"prompt_tokens": 50, "answer_tokens": 10, "input_price": 7, "output_price": 8}
    made = planned(raters=[rater], experiment={"strategies": ["random"], "sizes": [5]}, rates=rates)
    (line,) = [line for line in made.lines if line.step == f"rate by {rater['name']}"]
    assert line.money == pytest.approx((1_000 * 150 * sent + 1_000 * 10 * answered) / 1e6)


def test_a_rater_s_part_of_the_pool_is_what_it_takes_and_the_plan_says_what_that_saves() -> None:
    raters = [
        {"name": "local", "backend": {"kind": "transformers", "model": "org/Rater-8B"}, "sample": 0.1},
        {"name": "service", "backend": {"kind": "openai", "model": "m"}, "sample": 250},
        {"name": "all", "backend": {"kind": "openai", "model": "n"}, "sample": 5_000},
    ]
    rates = RATES | {"rated_per_second": 0.1, "prompt_tokens": 0, "answer_tokens": 0, "input_price": 1000}
    made = planned(raters=raters, experiment={"strategies": ["random"], "sizes": [5]}, rates=rates)
    lines = {line.step: line for line in made.lines}
    assert hours(made, "rate by local") == pytest.approx(100 / 0.1 / 3600)
    assert lines["rate by local"].work == "100 of 1,000 samples by org/Rater-8B, saves 2.5 GPU hours"
    assert lines["rate by service"].money == pytest.approx(25)
    assert lines["rate by service"].work == "25 k tokens by m, 250 of 1,000 samples, saves 75.00 USD"
    assert lines["rate by all"].money == pytest.approx(100)
    assert "saves" not in lines["rate by all"].work


def test_samples_that_files_name_are_rated_beside_the_part(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("".join(f"{number:032x}\n" for number in range(40)))
    rater = {"name": "service", "backend": {"kind": "openai", "model": "m"}, "sample": 250}
    rates = RATES | {"prompt_tokens": 0, "answer_tokens": 0, "input_price": 1000}
    other = {"backend": {"kind": "openai", "model": "n"}}
    more = rater | other | {"name": "more", "also": str(tmp_path / "ids.txt")}
    made = planned(raters=[rater, more], experiment={"strategies": ["random"], "sizes": [5]}, rates=rates)
    lines = {line.step: line for line in made.lines}
    assert lines["rate by more"].money == pytest.approx(lines["rate by service"].money * 290 / 250)
    assert "290 of 1,000 samples" in lines["rate by more"].work


def test_judging_takes_its_prompts_at_the_stated_rates() -> None:
    grid = {"strategies": ["random"], "sizes": [5], "seeds": [1, 2]}
    judging: dict[str, Any] = {
        "prompts": [
            {"name": "a", "path": "s3://b/a.jsonl", "limit": 40},
            {"name": "b", "dataset": "org/b", "limit": 60},
        ],
        "against": {"kind": "model", "model": "org/Other-8B"},
        "judge": {"backend": {"kind": "openai", "model": "gpt-4o-mini"}},
    }
    rates = RATES | {"written_tokens": 100, "written_per_second": 1_000, "prompt_tokens": 50, "answer_tokens": 10}
    made = planned(experiment=grid, judging=judging, rates=rates, **MODELS)
    assert hours(made, "answer prompts") == pytest.approx(3 * 100 * 100 / 1_000 / 3600)  # two cells and the opponent
    (judge,) = [line for line in made.lines if line.step == "judge"]
    asked = 2 * 2 * 100
    assert judge.money == pytest.approx((asked * 250 * 0.15 + asked * 10 * 0.60) / 1e6)
    local = judging | {"judge": {"backend": {"kind": "vllm", "model": "org/Judge-16B"}}}
    made = planned(experiment=grid, judging=local, rates=rates | {"rated_per_second": 10}, **MODELS)
    assert hours(made, "judge") == pytest.approx(2 * asked / 10 / 3600)


@pytest.mark.parametrize(
    ("price", "sent", "answered"), [({"price": {"input": 10, "output": 100}}, 10, 100), ({}, 7, 8)]
)
def test_answers_of_a_service_that_models_are_compared_with_are_paid_once(
    price: dict[str, Any], sent: float, answered: float
) -> None:
    judging: dict[str, Any] = {
        "prompts": [{"name": "a", "path": "s3://b/a.jsonl", "limit": 100}],
        "against": {"kind": "service", "base_url": "https://example.org/v1", "model": "big"} | price,
        "judge": {"backend": {"kind": "vllm", "model": "org/Judge-8B"}},
        "price": {"input": 1000, "output": 1000},
    }
    rates = RATES | {"written_tokens": 200, "prompt_tokens": 50, "input_price": 7, "output_price": 8}
    grid = {"strategies": ["random"], "sizes": [5], "seeds": [1, 2]}
    made = planned(experiment=grid, judging=judging, rates=rates, **MODELS)
    (service,) = [line for line in made.lines if line.work.endswith("by big")]
    assert (service.step, service.count) == ("answer prompts", 1)
    assert service.money == pytest.approx(100 * (sent * 50 + answered * 200) / 1e6)


def test_a_recipe_without_its_own_limit_has_as_many_samples_as_the_user_says() -> None:
    def samples(**source: Any) -> int:
        rates = {name: value for name, value in RATES.items() if name != "samples"}
        flan = {"name": "flan", "recipe": "flan_v2", **source}
        grid = {"strategies": ["random"], "sizes": [5]}
        return planned(pool={"sources": [flan]}, experiment=grid, rates=rates, work_dir="/nowhere").samples

    assert (samples(), samples(limit=50), samples(limit=300_000)) == (100_000, 50, 300_000)
    with pytest.raises(SettingsError, match=r"\bflan\b") as raised:
        samples(limit=None)
    assert "rates.samples" in raised.value.action


def test_the_pool_s_size_is_that_of_an_earlier_run_or_of_its_files_if_it_is_not_stated(tmp_path: Path) -> None:
    rows = [{"instruction": f"Question {i}?", "output": "Yes, and\nno."} for i in range(4)]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))  # its last line has no end
    (tmp_path / "b.json").write_text(json.dumps(rows))
    pd.DataFrame(rows).to_csv(tmp_path / "c.csv", index=False)
    pd.DataFrame(rows).to_parquet(tmp_path / "d.parquet")
    files = {"name": "files", "path": f"{tmp_path}/?.*"}
    few = {"name": "few", "path": f"{tmp_path}/a.jsonl", "limit": 3}
    given: dict[str, Any] = {"experiment": {"strategies": ["random"], "sizes": [5]}, "work_dir": str(tmp_path)}
    assert plan(settings(pool={"sources": [files, few]}, **given)).samples == 4 * 4 + 3
    with pytest.raises(SettingsError) as raised:
        plan(settings(pool={"sources": [files, {"name": "hub", "dataset": "some/set"}]}, **given))
    assert raised.value.problem.endswith(" hub")
    make_pool(tmp_path / "pool", [conversation(f"Question {i}?", "Yes.") for i in range(7)])
    assert plan(settings(pool={"sources": [files]}, **given)).samples == 7


def test_sources_without_a_row_and_files_that_are_gone_end_a_plan_as_they_end_a_run(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.touch()
    given: dict[str, Any] = {"experiment": {"strategies": ["random"], "sizes": [5]}, "work_dir": str(tmp_path)}
    raters = [{"name": "service", "backend": {"kind": "openai", "model": "m"}}]
    mine = settings(pool={"sources": [{"name": "a", "path": str(file)}]}, raters=raters, **given)
    with pytest.raises(InputError) as empty:
        plan(mine)
    assert "rates.samples" in empty.value.action
    make_pool(tmp_path / "pool", [conversation("Question?", "Yes.")])  # of an earlier run
    (tmp_path / ".tamis" / "artifacts").mkdir(parents=True)
    file.unlink()
    with pytest.raises(StorageError, match=str(file)) as gone:
        plan(mine)
    stated = plan(settings(pool=mine.pool.model_dump(), raters=raters, rates=RATES, **given))
    assert (stated.samples, as_text(stated).count(gone.value.problem)) == (1_000, 1)


def test_a_model_in_a_folder_is_as_large_as_its_weights(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1000, 60), "b": torch.zeros(20_000)}, tmp_path / "model.safetensors")
    of = {"epochs": 1, "micro_batch_size": 1, "batch_size": 1}
    grid = {"strategies": ["random"], "sizes": [500]}
    sections = {"experiment": grid, "evaluation": {"model": str(tmp_path), "suite": "quick"}}
    made = planned(finetuning=of | {"model": str(tmp_path)}, **sections)
    assert hours(made, "finetune") == pytest.approx(500 * 100 / 1_000 / 3600 * 80_000 / 8e9)
    (evaluated,) = [line for line in made.lines if line.step == "evaluate"]
    assert evaluated.work.endswith("paper, not of quick")


def test_the_rates_that_a_run_uses_are_shown_with_what_they_are_and_no_others() -> None:
    made = planned(experiment={"strategies": ["random"], "sizes": [5], "seeds": list(range(60))})
    text = as_text(made)
    for name in type(made.rates).model_fields:
        assert (f"\n{name} " in text) is (name in made.used)
    assert {"samples", "embedded_per_second", "gpu_hour", "currency"} <= set(made.used)
    assert not {"scored_per_second", "gradients_per_second", "evaluation_hours", "judged_prompts"} & set(made.used)
    assert str(type(made.rates).model_fields["gpu_hour"].description) in text
    assert "random-5-s59" in text


def test_a_rate_of_zero_is_shown_as_it_is_and_the_samples_as_they_were_counted(tmp_path: Path) -> None:
    (tmp_path / "pool.jsonl").write_text('{"instruction": "Why?", "output": "So."}\n' * 3)
    pool = {"sources": [{"name": "mine", "path": f"{tmp_path}/pool.jsonl"}]}
    grid = {"strategies": ["random"], "sizes": [2]}
    free = {"gpu_hour": 0, "input_price": 0, "prompt_tokens": 0}
    raters = [{"name": "asked", "backend": {"kind": "openai", "model": "m"}}]
    text = as_text(planned(pool=pool, experiment=grid, rates=free, work_dir=str(tmp_path), raters=raters))
    shown = {words[0]: words[1] for line in text.splitlines() if len(words := re.split(r" {2,}", line)) > 1}
    assert {name: float(shown[name]) for name in free} == dict.fromkeys(free, 0)
    assert shown["samples"] == "3"


def test_the_command_takes_rates_of_one_s_own() -> None:
    command = ["plan", str(ROOT / "examples/paper.yaml"), "--set", "rates.gpu_hour=0"]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0
    cells = {line[0]: line[1:] for text in result.output.splitlines() if (line := re.split(r" {2,}", text))}
    services = [float(cells[step][2]) for step in ("rate by gpt", "judge")]
    assert min(services) > 0
    assert float(cells["total"][1]) == pytest.approx(sum(services)), "what services cost is left"


def of_run(given: dict[str, Any], **sections: Any) -> RunSettings:
    return parse(RunSettings, given | sections, where="test")


def left(made: Plan) -> dict[str, int]:
    """How many steps of each kind are to be done."""
    return {line.step: line.of - line.done for line in made.lines if line.done < line.of}


def files_of(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_after_a_run_all_is_there_and_a_changed_setting_leaves_only_the_steps_that_it_concerns(
    continued_run: dict[str, Any], tmp_path: Path
) -> None:
    before = files_of(tmp_path)
    made = plan(of_run(continued_run))
    assert left(made) == {}
    assert (made.money, made.gpu_hours) == (0, 0)
    assert made.all_gpu_hours > 0
    assert made.samples == 42
    assert all(line.time.seconds == 0 for line in made.lines)
    titled = plan(of_run(continued_run, report={"title": "Another"}))
    assert left(titled) == {"report": 1}
    (report,) = [line for line in titled.lines if line.step == "report"]
    assert report.time.seconds, "the run before tells how long it takes here"
    searched = plan(of_run(continued_run, neighbors={"k": 12}))
    assert left(searched) == {"neighbors": 1, "curate": 1, "select": 1, "report": 1}, "`random` takes the pool only"
    shorter = {"sources": [continued_run["pool"]["sources"][0] | {"limit": 20}]}
    other = plan(of_run(continued_run, pool=shorter))
    assert other.samples == 20
    assert set(left(other)) == {line.step for line in other.lines}
    assert files_of(tmp_path) == before, "a plan writes nothing"


def test_ratings_that_the_store_has_are_not_paid_again(
    continued_run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with Server(lambda _: Reaction(completion())) as server:
        backend = {"kind": "openai", "base_url": server.url, "model": "m", "limits": {"requests_per_minute": 10}}
        rater = {"name": "asked", "backend": backend, "price": {"input": 1000, "output": 0}}
        unlimited = rater | {"sample": 12, "backend": {**backend, "limits": {}}}
        run_rating(RatingSettings.model_validate(unlimited), pool=tmp_path / "work/pool", out=tmp_path / "some")
        asked = len(server.asked)
    rates = {"prompt_tokens": 0, "tokens_per_sample": 100}
    made = plan(of_run(continued_run, raters=[rater], rates=rates))  # nobody answers any more
    (line,) = [line for line in made.lines if line.step == "rate by asked"]
    assert asked == 12
    assert line.answers == (12, 42)
    assert (line.money, line.all_money) == (pytest.approx(30 * 0.1), pytest.approx(42 * 0.1))
    assert line.time.seconds == pytest.approx(3 * 60), "30 requests, 10 a minute"
    assert made.money == pytest.approx(line.money + sum(line.gpu_hours for line in made.lines) * made.rates.gpu_hour)
    shorter = {"sources": [continued_run["pool"]["sources"][0] | {"limit": 20}]}
    before = plan(of_run(continued_run, raters=[rater], rates=rates, pool=shorter))
    (line,) = [line for line in before.lines if line.step == "rate by asked"]
    assert line.answers is None
    assert "12 " in line.unknown, "which of them are of the new pool is not known before it is there"


def test_what_is_measured_is_the_model_and_nothing_is_kept(
    continued_run: dict[str, Any], tiny: Path, tmp_path: Path
) -> None:
    raters = [{"name": "local", "backend": {"kind": "transformers", "model": str(tiny)}}]
    settings, before = of_run(continued_run, raters=raters), files_of(tmp_path)

    def time_of(made: Plan) -> float | None:
        (line,) = [line for line in made.lines if line.step == "rate by local"]
        return line.time.seconds

    assert time_of(plan(settings)) is None
    assert (time_of(plan(settings, measure=True)) or 0) > 0
    assert files_of(tmp_path) == before
    assert not list(Path(os.environ["XDG_DATA_HOME"]).rglob("*.jsonl"))


def test_a_model_that_is_not_here_is_not_fetched_to_be_measured(tmp_path: Path) -> None:
    raters = [{"name": "local", "backend": {"kind": "transformers", "model": "org/Rater-8B"}}]
    given = {"experiment": {"strategies": ["random"], "sizes": [5]}, "work_dir": str(tmp_path)}
    (tmp_path / "a.jsonl").write_text(json.dumps({"instruction": "Why?", "output": "So."}) + "\n")
    pool = {"sources": [{"name": "a", "path": str(tmp_path / "a.jsonl")}]}
    made = plan(settings(raters=raters, pool=pool, rates=RATES, **given), measure=True)
    (line,) = [line for line in made.lines if line.step == "rate by local"]
    assert line.time.seconds is None
    assert "cannot be measured" in line.time.rests


def test_what_goes_is_said_with_all_the_rest(tmp_path: Path) -> None:
    made = planned(experiment={"strategies": ["random"], "sizes": [5]})
    text = as_text(replace(made, removed=["selections/old"]))
    assert text.splitlines()[-1].endswith("selections/old")
