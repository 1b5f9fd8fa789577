"""`budget`: what raters and judging of a whole run may spend together, by the account of the service that charges."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

pytest.importorskip("kfp")
pytest.importorskip("openai")

from tamis.cli import main
from tamis.core.errors import ModelError, SettingsError
from tamis.core.settings import parse, understood
from tamis.judging.settings import JudgingSettings
from tamis.judging.stage import run as judge
from tamis.rating.settings import RatingSettings
from tamis.rating.stage import run as rate
from tamis_pipelines.budget import Share, by_payer, highest_costs, shared_out, shares_of
from tamis_pipelines.checks.money import money
from tamis_pipelines.plan import plan
from tamis_pipelines.plan_text import as_text
from tamis_pipelines.settings import RunSettings
from tests.artifacts import conversation, make_pool
from tests.llm_server import Asked, Reaction, Server, Till
from tests.pipeline.conftest import tamis, write, write_settings
from tests.pipeline.test_experiment import MODELS, settings
from tests.unit.judging.matches import given, write_lines

PRICE = {"input": 1, "output": 2}
SERVICE = {"kind": "openai", "model": "m", "api_key_env": None, "base_url": "http://127.0.0.1:9/v1"}
RATES = {"samples": 100, "tokens_per_sample": 100, "prompt_tokens": 100, "answer_tokens": 50, "written_tokens": 400}
RATING = 100 * (200 + 2 * 50) / 1e6  # of all samples
MATCH = 2 * 30 * (900 + 2 * 50) / 1e6  # of thirty prompts, in both orders
GRID = {"strategies": ["random"], "sizes": [5], "seeds": [1, 2, 3]}


def run_of(**sections: Any) -> RunSettings:
    """A rater that is a service, and three cells that a service judges against given answers."""
    rater = {"name": "mini", "backend": SERVICE, "price": PRICE}
    judging = {
        "prompts": [{"name": "set", "path": "s3://bucket/prompts.jsonl", "limit": 30}],
        "against": {"kind": "answers", "name": "theirs", "path": "s3://bucket/answers.jsonl"},
        "judge": {"backend": SERVICE},
        "price": PRICE,
    }
    judging |= sections.pop("judging", {})
    return settings(**{"raters": [rater], "experiment": GRID, "rates": RATES, "judging": judging} | MODELS | sections)


def money_of(made: RunSettings) -> dict[str, float]:
    return dict(by_payer(shares_of(made)))


CELLS = [f"judging.random-5-s{seed}" for seed in (1, 2, 3)]


def test_every_payer_has_its_share_by_the_estimate() -> None:
    made = run_of(budget={"max_cost": 1})
    whole = RATING + 3 * MATCH
    expected = {"raters.mini": RATING / whole} | dict.fromkeys(CELLS, MATCH / whole)
    assert money_of(made) == pytest.approx(expected)
    assert sum(money_of(made).values()) == pytest.approx(1)
    assert money_of(made) == money_of(run_of(budget={"max_cost": 1})), "equal settings, equal shares"
    assert shares_of(run_of()) == []


def test_the_highest_costs_of_a_run_are_the_budget_or_the_limits_of_all_cells() -> None:
    assert "1.50 USD" in highest_costs(run_of(budget={"max_cost": 1.5}))
    limited = highest_costs(run_of(judging={"max_cost": 5}))
    assert "15.00 USD for judging" in limited
    assert "no limit for raters.mini" in limited
    assert highest_costs(run_of()) == "no limit for raters.mini, judging"
    own = {"name": "own", "backend": {"kind": "transformers", "model": "org/own"}}
    assert highest_costs(settings(raters=[own], experiment=GRID, **MODELS)) == "", "nothing is paid"


def test_what_an_own_limit_leaves_goes_to_the_others() -> None:
    made = run_of(budget={"max_cost": 1}, judging={"max_cost": 0.1})
    assert money_of(made) == pytest.approx({"raters.mini": 0.7} | dict.fromkeys(CELLS, 0.1))
    first, second, third = shared_out(
        10, [Share("a", 1, 0.5), Share("b", 1, 4.0), Share("c", 2, None)]
    )  # b is above its limit only when a has left some of its share
    assert (first.money, second.money, third.money) == pytest.approx((0.5, 19 / 6, 19 / 3))
    assert [share.money for share in shared_out(10, [Share("a", 1, 2.0), Share("b", 9, 3.0)])] == [2.0, 3.0]


def test_raters_and_matches_are_told_their_shares_and_nobody_else_is() -> None:
    made = run_of(budget={"max_cost": 1})
    shares = money_of(made)
    here, there = made.arguments(shares), made.cluster_arguments("", shares, cells_per_pod=2)
    assert here["raters"][0]["budget_share"] == there["raters"][0][0]["budget_share"] == shares["raters.mini"]
    assert [cell["judging"]["budget_share"] for cell in here["cells"]] == [shares[cell] for cell in CELLS]
    told = [there["judging"] | own for group in there["cells"] for own in group["judging"]]
    assert [one["budget_share"] for one in told] == [shares[cell] for cell in CELLS]
    assert not {"budget"} & {*here, *there}
    assert "budget_share" not in json.dumps(made.arguments())


def test_shards_of_a_rater_share_its_share() -> None:
    made = run_of(budget={"max_cost": 1}, kubeflow={"rating_shards": {"mini": 4}})
    workers = made.cluster_arguments("", money_of(made))["workers"]
    assert [worker["budget_share"] for worker in workers] == [money_of(made)["raters.mini"]] * 4


@pytest.mark.parametrize(
    "sections",
    [
        {"raters": [{"name": "mini", "backend": SERVICE}]},
        {"judging": {"price": None}},
        {"judging": {"against": {"kind": "service", "name": "other", "model": "m", "base_url": "http://x/v1"}}},
        {"rates": RATES | {"answer_tokens": 0}},
    ],
)
def test_a_budget_needs_the_price_of_everybody_who_is_asked(sections: dict[str, Any]) -> None:
    run_of(**sections)
    with pytest.raises(SettingsError) as raised:
        run_of(budget={"max_cost": 1}, **sections)
    assert raised.value.code == "settings"


@pytest.mark.parametrize("section", [{"judging": {"budget_share": 1}}, {"judging": {}, "rater": {"budget_share": 1}}])
def test_shares_are_made_by_the_run_alone(section: dict[str, Any]) -> None:
    rater = {"name": "mini", "backend": SERVICE, "price": PRICE} | section.pop("rater", {})
    with pytest.raises(SettingsError):
        run_of(raters=[rater], **section)


def test_a_pool_of_unknown_size_is_asked_for() -> None:
    with pytest.raises(SettingsError) as raised:
        shares_of(run_of(budget={"max_cost": 1}, rates={}))
    assert "rates.samples" in raised.value.action


@pytest.mark.parametrize(("most", "level"), [(0.9, "ok"), (0.1, "note")])
def test_doctor_and_plan_say_whether_the_estimate_exceeds_the_budget(most: float, level: str) -> None:
    made = run_of(budget={"max_cost": most})
    assert [check.level for check in money(made)] == [level]
    estimate = RATING + 3 * MATCH
    found = plan(made)
    assert (found.budget, sum(share.estimate for share in found.shares)) == (most, pytest.approx(estimate))
    text = as_text(found)
    assert (f"exceed it by {estimate - most:,.2f} USD" in text) == (level == "note")
    assert "judging.random-5-s3" in text
    assert list(money(run_of())) == []


class Account:
    """A service that judges at random, and rates; `till` has what it is owed."""

    def __init__(self, till: Till) -> None:
        self.till, self._chance = till, random.Random(0)

    def __call__(self, asked: Asked) -> Reaction:
        reaction = self.till(asked)
        if "[Question]" in asked.prompt:
            scores = {"Answer 1": self._chance.randint(1, 10), "Answer 2": self._chance.randint(1, 10)}
            reaction.body["choices"][0]["message"]["content"] = json.dumps(scores)
        return reaction


PROMPTS = [f"What is {number}?" for number in range(30)]


def steps_of(folder: Path, server: Server, most: float) -> Mapping[str, Callable[[], Any]]:
    """What the pods of a run with one rater and three cells do, with what the run tells them, by payer."""
    backend = SERVICE | {"base_url": server.url, "concurrency": 2}
    prompts = write_lines(folder / "prompts.jsonl", [{"prompt": prompt} for prompt in PROMPTS])
    rater = {"name": "mini", "backend": backend, "price": PRICE, "store": str(folder / "ratings")}
    judging = {
        "prompts": [{"name": "set", "path": prompts, "limit": 30}],
        "against": given(folder, "theirs", dict.fromkeys(PROMPTS, "theirs")),
        "judge": {"backend": backend},
        "store": str(folder / "judging"),
    }
    true = {"samples": 100, "tokens_per_sample": 100, "prompt_tokens": 0, "answer_tokens": 50, "written_tokens": 50}
    made = run_of(budget={"max_cost": most}, raters=[rater], judging=judging, rates=true)
    arguments = made.arguments(money_of(made))
    pool = folder / "pool"
    if not pool.exists():
        make_pool(pool, [conversation(f"What is {n}?", f"A number, {n}.") for n in range(100)])
    steps: dict[str, Callable[[], Any]] = {}
    (rating,) = arguments["raters"]
    settings_of_rater = parse(RatingSettings, understood(rating), where="rater")
    steps["rating"] = lambda: rate(settings_of_rater, pool=pool, out=folder / "out" / "rating")
    for number, cell in enumerate(arguments["cells"]):
        ours = given(folder, f"cell{number}", dict.fromkeys(PROMPTS, f"ours {number}"))
        match = parse(JudgingSettings, understood(cell["judging"]) | {"model": ours}, where="cell")
        steps[f"cell{number}"] = lambda match=match, number=number: judge(match, out=folder / "out" / f"cell{number}")
    return steps


def error_of(step: Callable[[], Any]) -> ModelError:
    with pytest.raises(ModelError) as raised:
        step()
    return raised.value


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_run_stops_at_its_budget_and_a_raised_one_goes_on_without_paying_twice(at_once: int, tmp_path: Path) -> None:
    till = Till(answer=50, prices=(1.0, 1.0, 2.0, 2.0))
    with Server(Account(till)) as server, ThreadPoolExecutor(at_once) as pods:
        whole = 100 * till.price_of(50) + 3 * 2 * 30 * till.price_of(50)
        budget = 0.6 * whole
        failed = list(pods.map(error_of, steps_of(tmp_path, server, budget).values()))
        assert [error.code for error in failed] == ["budget"] * 4
        assert all("budget.max_cost" in error.action for error in failed)
        assert 0.5 * whole < till.charged <= budget
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("*/manifest.json"))
        for done in pods.map(lambda step: step(), steps_of(tmp_path, server, 2 * whole).values()):
            assert done.rows
        assert till.charged == pytest.approx(whole), "nothing is paid twice"
        asked = len(server.asked)
        for step in steps_of(tmp_path, server, 3 * whole).values():
            step()  # at the same place: other keys would be refused there
    assert len(server.asked) == asked


def test_a_local_run_keeps_to_its_budget_and_a_raised_one_goes_on(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    values = yaml.safe_load(write_settings(tmp_path, models).read_text())
    till = Till(answer=50, prices=(1.0, 1.0, 2.0, 2.0))
    whole = 42 * till.price_of(50)
    with Server(till) as server:
        backend = SERVICE | {"base_url": server.url, "concurrency": 2}
        raters = [{"name": name, "backend": backend | {"model": name}, "price": PRICE} for name in ("one", "two")]
        subset = {"name": "best", "strategy": "ds2", "size": 10, "rater": "one"}
        values |= {"raters": raters, "subsets": [subset]}
        ended = tamis("run", write(tmp_path, values | {"budget": {"max_cost": whole}}))
        assert ended.returncode == 1
        assert "budget.max_cost" in ended.stderr
        assert 0 < till.charged <= whole
        ended = tamis("run", write(tmp_path, values | {"budget": {"max_cost": 3 * whole}}))
        assert ended.returncode == 0, ended.stderr
        assert till.charged == pytest.approx(2 * whole)


def test_a_submitted_run_is_told_its_shares(tmp_path: Path) -> None:
    backend = SERVICE | {"base_url": "https://service.example/v1"}
    rater = {"name": "mini", "backend": backend, "price": PRICE, "store": "s3://data/ratings"}
    values = {
        "work_dir": "unused",
        "pool": {"sources": [{"name": "facts", "path": "s3://data/facts.jsonl"}]},
        "raters": [rater],
        "subsets": [{"name": "random", "strategy": "random", "size": 10}],
        "rates": RATES,
        "budget": {"max_cost": 7.5},
    }
    result = CliRunner().invoke(main, ["submit", str(write(tmp_path, values)), "--dry-run"])
    assert result.exit_code == 0, result.output
    sent = yaml.safe_load("parameters:\n" + result.output.partition("parameters:\n")[2])["parameters"]
    assert [rater["budget_share"] for group in sent["raters"] for rater in group] == [7.5]
