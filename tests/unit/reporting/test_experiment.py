"""The report of an experiment: means over seeds, sizes, failed cells, published figures."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis.core.artifacts import Artifact
from tamis.core.failures import Failure
from tamis.core.settings import StageSettings
from tamis.core.steps import Input, Step, run_step
from tamis.core.tables import EVALUATION, SELECTION
from tamis.reporting import reference
from tamis.reporting.experiment import Group
from tamis.reporting.numbers import DASH
from tamis.reporting.settings import ReportingSettings
from tamis.reporting.stage import run
from tests.artifacts import conversation, make_pool
from tests.unit.reporting.markup import Page

BASE = "org/Base-1B"


class Selected(StageSettings):
    """What the report reads of a selection's settings."""

    OUTPUT_REVISION: ClassVar[int] = 1

    name: str
    strategy: str
    variant: str = "published"
    rank_by: str = "class"
    rater: str | None = None
    size: float
    seed: int
    k: int = 10


class Trained(StageSettings):
    """What it reads of a training's, and of an evaluation's."""

    OUTPUT_REVISION: ClassVar[int] = 1

    model: str = BASE
    seed: int = 42


class Lab:
    """Makes the artifacts of cells, and their report."""

    def __init__(self, folder: Path, tasks: Sequence[str] = ("t1", "t2")) -> None:
        self.folder, self.tasks = folder, tasks
        self.pool = make_pool(folder / "pool", [conversation(f"Question {i}?", f"Answer {i}.") for i in range(20)])
        self.ids: list[str] = Artifact.open(self.pool).table(["id"])["id"].to_pylist()
        self.made: dict[str, list[Path]] = {"selections": [], "models": [], "evaluations": []}
        self.failed: list[Failure] = []

    def base(self, *values: float, model: str = BASE, name: str = "base") -> None:
        self._evaluated(name, values, Trained(model=model), model=None)

    def cell(self, selected: Selected, *values: float, model: str = BASE) -> None:
        """A cell with a value for each task."""
        out, trained = self._selected(selected), Trained(model=model, seed=selected.seed)
        path = self.folder / f"model-{selected.name}"
        run_step("finetuning", "model", trained, _nothing, out=path, inputs={"selection": Input(out, "selection")},
                 name=selected.name)  # fmt: skip
        self.made["models"].append(path)
        self._evaluated(selected.name, values, Trained(model=BASE), model=path)

    def failing(self, selected: Selected, *, stage: str, reason: str = "it broke") -> None:
        known = {"selection": selected.model_dump(), "model": Trained(seed=selected.seed).model_dump()}
        if stage != "selection":
            self._selected(selected)
            del known["selection"]
        self.failed.append(Failure(name=selected.name, stage=stage, reason=reason, settings=known))

    def report(self, **settings: int) -> Page:
        run(ReportingSettings(**settings), pool=self.pool, **self.made, failed=self.failed, out=self.folder / "report")
        return Page((self.folder / "report/report.html").read_text(encoding="utf-8"))

    def results(self, section: str = "experiment") -> dict[tuple[str, str], dict[str, str]]:
        with (self.folder / "report/results.csv").open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["section"] == section]
        return {(row["subject"], row["measure"]): row for row in rows}

    def _selected(self, selected: Selected) -> Path:
        count = int(selected.size)
        rows = [{"id": i, "rank": n, "score": None, "diversity": None} for n, i in enumerate(self.ids[:count])]

        def write(step: Step[Selected]) -> None:
            pq.write_table(pa.Table.from_pylist(rows, schema=SELECTION), step.out / "selection.parquet")

        out = self.folder / f"selection-{selected.name}"
        run_step("selection", "selection", selected, write, out=out, name=selected.name)
        self.made["selections"].append(out)
        return out

    def _evaluated(self, name: str, values: tuple[float, ...], trained: Trained, model: Path | None) -> None:
        rows = [
            {"model": name, "task": task, "metric": "acc", "value": value, "stderr": 0.01, "n": 9}
            for task, value in zip(self.tasks, values, strict=True)
        ]

        def write(step: Step[Trained]) -> None:
            pq.write_table(pa.Table.from_pylist(rows, schema=EVALUATION), step.out / "scores.parquet")

        out = self.folder / f"evaluation-{name}"
        inputs = {"model": Input(model, "model")}
        run_step("evaluation", "evaluation", trained, write, out=out, inputs=inputs, name=name)
        self.made["evaluations"].append(out)


def _nothing(step: Step[Trained]) -> None:
    (step.out / "weights").write_text("w")


def ds2(seed: int, size: float = 5, **more: object) -> Selected:
    name = f"ds2-{size:g}-s{seed}"
    return Selected.model_validate({"name": name, "strategy": "ds2", "rater": "r", "size": size, "seed": seed} | more)


def random(seed: int, size: float = 5) -> Selected:
    return Selected(name=f"random-{size:g}-s{seed}", strategy="random", size=size, seed=seed)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    lab.base(0.30, 0.40)
    return lab


def test_a_strategy_has_the_mean_over_its_seeds_and_their_standard_deviation(lab: Lab) -> None:
    first, second = [0.50, 0.51, 0.55], [0.40, 0.44, 0.40]
    for seed, (one, other) in enumerate(zip(first, second, strict=True)):
        lab.cell(ds2(seed), one, other)
    lab.cell(random(0), 0.45, 0.40)
    header, base, best, rest = lab.report().rows("Strategies and tasks")
    assert header == ["strategy", "rater", "samples", "seeds", "t1", "t2", "mean"]
    assert base == ["no training", DASH, DASH, DASH, "30.0", "40.0", "35.0"]
    assert best == ["ds2", "r", "5", "3", "52.0 ± 2.6", "41.3 ± 2.3", "46.7 ± 1.4"]
    assert rest == ["random", DASH, "5", "1", "45.0", "40.0", "42.5"], "one seed has no spread"
    row = lab.results()["ds2, rated by r, 5 samples", "t1 acc, mean over seeds"]
    assert (float(row["value"]), row["n"]) == (pytest.approx(mean(first)), "3")
    spread = lab.results()["ds2, rated by r, 5 samples", "t1 acc, standard deviation over seeds"]
    assert float(spread["value"]) == pytest.approx(stdev(first))


def test_a_failed_seed_is_counted_and_enters_no_mean(lab: Lab) -> None:
    lab.cell(ds2(1), 0.5, 0.4)
    lab.failing(ds2(2), stage="model", reason="the loss is not finite")
    lab.failing(random(1), stage="selection", reason="6 samples asked of 5 eligible\n  allowed: at most 5")
    lab.failing(random(2), stage="selection")
    page = lab.report()
    _, _, half, none = page.rows("Strategies and tasks")
    assert half == ["ds2", "r", "5", "1 of 2", "50.0", "40.0", "45.0"]
    assert none == ["random", DASH, "5", "0 of 2", "failed", "failed", "failed"]
    assert page.rows("Cells without a result")[1:] == [
        ["ds2-5-s2", "the loss is not finite", "model", "ds2", "2"],
        ["random-5-s1", "6 samples asked of 5 eligible; allowed: at most 5", "selection", "random", "1"],
        ["random-5-s2", "it broke", "selection", "random", "2"],
    ]
    assert "3 of 4 cells failed" in page.text
    assert lab.results()["random, 5 samples", "mean over tasks, mean over seeds"]["value"] == ""


def test_a_run_in_which_all_failed_still_names_the_reasons(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.failing(ds2(1), stage="selection", reason="no rater")
    page = lab.report()
    assert page.rows("Cells without a result")[1] == ["ds2-5-s1", "no rater", "selection", "ds2", "1"]
    assert page.rows("Strategies and tasks") == []


def test_scores_are_drawn_over_the_sizes_of_the_subsets(lab: Lab) -> None:
    for size, value in ((5, 0.40), (10, 0.50), (20, 0.45)):
        lab.cell(ds2(1, size), value, 0.4)
        lab.cell(ds2(2, size), value + 0.02, 0.4)
    lab.cell(random(1), 0.3, 0.3)
    lab.failing(ds2(3, 10), stage="model")
    page = lab.report()
    plots = {path.stem for path in (lab.folder / "report/plots").glob("scale-*.svg")}
    assert plots == {"scale-mean-over-tasks", "scale-t1", "scale-t2"}
    (t1,) = [said for e in page.all("svg") if "51.0 at 10" in (said := e.attributes["aria-label"])]
    assert t1.endswith("ds2, r 41.0 at 5, 51.0 at 10, 46.0 at 20; random 30.0 at 5.")


def test_one_size_makes_no_curve(lab: Lab) -> None:
    lab.cell(ds2(1), 0.5, 0.5)
    lab.report()
    assert list((lab.folder / "report/plots").glob("scale-*")) == []


def test_cells_that_differ_in_more_than_the_seed_are_no_seeds_of_one_thing(lab: Lab) -> None:
    lab.cell(ds2(1), 0.5, 0.5)
    lab.cell(ds2(2, name="near", k=3), 0.7, 0.7)
    rows = lab.report().rows("Strategies and tasks")[2:]
    assert [(row[0], row[3], row[4]) for row in rows] == [("ds2, ds2-5-s1", "1", "50.0"), ("ds2, near", "1", "70.0")]


def test_every_base_model_has_its_own_rows_and_its_own_start(lab: Lab) -> None:
    lab.base(0.1, 0.1, model="org/Other-7B", name="base-Other-7B")
    lab.cell(ds2(1), 0.5, 0.5)
    lab.cell(ds2(1, name="ds2-other"), 0.2, 0.3, model="org/Other-7B")
    page = lab.report()
    for model, base, trained in (("Base-1B", "35.0", "50.0"), ("Other-7B", "10.0", "25.0")):
        rows = page.rows(f"Strategies and tasks, {model}")
        assert [(row[0], row[-1]) for row in rows[1:]] == [("no training", base), ("ds2", trained)]
    differences = {row[0]: row[-1].split(" ")[0] for row in page.rows("Difference from the base model")[1:]}
    assert differences == {"ds2-5-s1": "+15.0", "ds2-other": "+15.0"}


def test_a_base_of_another_model_is_no_start_to_measure_from(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.base(0.1, 0.1, model="org/Other-7B")
    lab.cell(ds2(1), 0.5, 0.5)
    page = lab.report()
    assert "the base model was not evaluated, so there is nothing to compare it with" in page.text
    assert "Difference from the base model" not in page.text


def test_bases_that_are_all_named_after_their_models_are_bases(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.cell(ds2(1), 0.5, 0.5)
    lab.base(0.3, 0.4, name="base-Base-1B")
    page = lab.report()
    assert [row[0] for row in page.rows("Scores")[1:]] == ["base-Base-1B", "ds2-5-s1"]
    assert [row[-1].split(" ")[0] for row in page.rows("Difference from the base model")[1:]] == ["+15.0"]


def test_nothing_is_said_to_be_better_within_the_spread_of_the_seeds(lab: Lab) -> None:
    for seed, (one, other) in enumerate([(0.50, 0.49), (0.54, 0.53)]):
        lab.cell(ds2(seed), one, one)
        lab.cell(random(seed), other, other)
    assert "next is random, 5 samples with 51.0 ± 2.8, within the spread of the seeds" in lab.report().text


def test_no_strategy_is_called_the_best_where_all_are_alike(lab: Lab) -> None:
    for seed in (1, 2):
        lab.cell(ds2(seed), 0.5, 0.4)
        lab.cell(random(seed), 0.5, 0.4)
    text = lab.report().text
    assert "All strategies have the same mean over 2 tasks: 45.0 ± 0.0 over 2 seeds." in text
    assert "Over 2 tasks, each of 4 subsets reached 45.0 on average" in text
    assert "best" not in text


def test_the_paper_s_figures_stand_beside_the_same_cells_and_are_marked_as_the_paper_s(tmp_path: Path) -> None:
    lab = Lab(tmp_path, ["mmlu", "truthfulqa_mc2"])
    model = "meta-llama/Llama-3.1-8B"
    lab.base(0.5, 0.4, model=model)
    lab.cell(ds2(1, size=10_000, rater="gpt-4o-mini"), 0.6, 0.5, model=model)
    lab.cell(random(1), 0.6, 0.5, model=model)
    page = lab.report()
    header, base, best = page.rows("Compared with the paper's figures")
    assert header == ["strategy", "rater", "samples", "mmlu", "mmlu, paper", "mean", "mean, paper"]
    assert base == ["no training", DASH, DASH, "50.0", "64.1", "45.0", "46.6"]
    assert best == ["ds2", "gpt-4o-mini", "10,000", "60.0", "64.0", "55.0", "61.0 ± 0.6"]
    assert "not results of this run" in page.text


def test_a_ranking_by_mean_is_a_row_of_its_own(lab: Lab) -> None:
    lab.cell(ds2(1), 0.5, 0.5)
    lab.cell(ds2(1, name="by-mean", rank_by="mean"), 0.6, 0.6)
    rows = lab.report().rows("Strategies and tasks")
    assert [row[0] for row in rows[2:]] == ["ds2", "ds2 (by mean)"]


def test_a_run_of_other_models_shows_no_figures_of_the_paper(lab: Lab) -> None:
    lab.cell(ds2(1), 0.5, 0.5)
    assert lab.report().rows("Compared with the paper's figures") == []


def group(strategy: str, *, variant: str = "published", rater: str = "", size: int = 10_000, model: str = "") -> Group:
    model = model or "meta-llama/Llama-3.1-8B"
    return Group(strategy, strategy, variant, rater, size, model, "base", [])


def test_published_figures_belong_to_the_same_model_rater_strategy_and_size() -> None:
    raters = {"mini": "openai/gpt-4o-mini", "l": "/models/Llama-3.1-8B-Instruct"}
    found = reference.published(group("ds2", rater="mini"), raters)
    expected = {
        "mmlu": 0.64,
        "gsm8k_cot": 0.675,
        "bbh": 0.59,
        "tydiqa_goldp_mean": 0.661,
        "mean": 0.6103,
        "deviation": 0.0055,
    }
    assert found == pytest.approx(expected)
    assert reference.published(group("ds2", rater="l", size=2500), raters) == pytest.approx(
        {"mean": 0.573, "deviation": 0.0148}
    )
    assert reference.published(group("ds2", rater="gpt-4o-mini"), {})["mmlu"] == 0.64, "imported ratings go by name"
    assert reference.published_base("/models/Llama-3.1-8B")["mean"] == 0.466
    on_mistral = group("ds2-raw", rater="m", model="mistralai/Mistral-7B-v0.3")
    assert reference.published(on_mistral, {"m": "mistralai/Mistral-7B-Instruct-v0.3"})["gsm8k_cot"] == 0.43
    for other in (
        group("ds2", rater="mini", size=9_999),
        group("ds2", rater="mini", model="mistralai/Mistral-7B-v0.3"),
        group("ds2", rater="another"),
        group("alpagasus", rater="mini"),
        group("ds2", rater="mini", variant="by mean"),
        group("ds2"),
    ):
        assert reference.published(other, raters) == {}, other
    as_run = group("alpagasus", rater="mini", variant="ds2-paper")
    assert reference.published(as_run, raters)["mean"] == pytest.approx(0.5317)
