"""What failed in a run on Kubeflow is tried again when the same settings are submitted again, and nothing else is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from kfp import dsl

from tamis.cells import execute_cells
from tamis.cluster.component import start_run
from tamis.core.artifacts import Manifest
from tamis.core.errors import ModelError
from tamis.core.finished import PLACE
from tamis.core.settings import StageSettings
from tamis.core.steps import Step as StageStep
from tamis.core.steps import run_step
from tamis_pipelines.packages import compile_one
from tamis_pipelines.settings import RunSettings
from tamis_pipelines.workflow.size import Package
from tests.pipeline.kubeflow_cache import Cluster, Step

UNCACHED = {"start-run", "require-all-cells", "note-outcome"}
MADE = {"select": "selection", "finetune": "model", "evaluate": "evaluation", "evaluate-2": "evaluation"} | {
    "judge": "judgement",
    "score": "scores",
}
RUN: dict[str, Any] = {
    "work_dir": "unused",
    "pool": {"sources": [{"name": "facts", "path": "s3://data/facts.jsonl"}]},
    "raters": [
        {
            "name": "given",
            "backend": {"kind": "import", "path": "s3://data/facts.jsonl", "by": "row", "overall": "rating"},
        }
    ],
    "finetuning": {"model": "org/base"},
    "evaluation": {"model": "org/base", "suite": "paper"},
    "judging": {
        "prompts": [{"name": "set", "path": "s3://data/prompts.jsonl"}],
        "against": {"kind": "artifact", "path": "s3://data/opponent"},
        "judge": {"backend": {"kind": "openai", "model": "judge"}},
        "store": "s3://data/judging",
    },
}


class Plain(StageSettings):
    """Settings of any stage, as far as this test looks at them."""

    OUTPUT_REVISION: ClassVar[int] = 1

    name: str = ""
    seed: int = 0
    work: str = ""


@dataclass
class Pods:
    """Does the steps of a run as pods would: `fails` are the steps and cells whose cause is not mended.

    `done` counts what has been made.
    """

    fails: set[tuple[str, str]] = field(default_factory=set)
    done: Counter[tuple[str, str]] = field(default_factory=Counter)
    outcomes: str = ""

    def __call__(self, step: Step) -> dict[str, Any]:
        if step.name == "start-run":
            started = dsl.Artifact(name="started", uri=step.output("started"))
            made = start_run.python_func(started=started, **step.parameters | {"outcomes": self.outcomes})
            return dict(made._asdict())
        if step.name in MADE:
            self._make(step, MADE[step.name])
        return {}

    def _make(self, step: Step, kind: str) -> None:
        own = {name: step.inputs[name][0] for name in ("selection", "model") if step.inputs.get(name)}
        cells = step.parameters.get("cells")
        names = [cell["name"] for cell in cells if "name" in cell] if cells and not own else None
        out = dsl.Artifact(name=kind, uri=step.output(kind))

        def stage(settings: Plain, *, out: str, **inputs: Any) -> Manifest:
            name = settings.name or Path(inputs[next(iter(own))], "manifest.json").read_text().partition('"name":"')[2]
            name = name.partition('"')[0]

            def body(made: StageStep[Plain]) -> None:
                self.done[step.name, name] += 1
                if (step.name, name) in self.fails:
                    raise ModelError("it does not work")
                (made.out / "made").write_text(f"{kind} of {name}")

            return run_step(kind, kind, Plain(name=name, work=step.name), body, out=out, name=name)

        assert names is None or len(names) == len(cells or [])
        given = [{"name": cell["name"]} if "name" in cell else {} for cell in cells] if cells is not None else None
        common = {"name": "perplexity"} if kind == "scores" else {}
        execute_cells(stage, Plain, common, given, out=out, metrics=dsl.Metrics(uri=f"{out.uri}.m"), of_each=own)


def package_of(settings: RunSettings, folder: Path) -> Package:
    return Package.read(
        compile_one(settings.pipeline, folder, settings.compiled, settings.kubeflow.arguments() | {"outcomes": ""})
    )


@pytest.fixture(scope="module")
def experiment() -> RunSettings:
    subsets = [{"name": name, "strategy": "random", "size": 10} for name in ("a", "b", "c", "d")]
    return RunSettings.model_validate(RUN | {"subsets": subsets})


@pytest.fixture(scope="module")
def package(experiment: RunSettings, tmp_path_factory: pytest.TempPathFactory) -> Package:
    return package_of(experiment, tmp_path_factory.mktemp("package"))


@pytest.fixture(autouse=True)
def _pods_share_no_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAMIS_HOME", raising=False)


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    assert before.keys() == after.keys()
    return {step for step, key in before.items() if after[step] != key} - UNCACHED


@pytest.mark.parametrize(
    ("failed", "per_pod", "others"),
    [
        (("select", "b"), 1, {"select 1", "finetune 1", "evaluate-2 1", "judge 1", "report"}),
        (("finetune", "b"), 1, {"finetune 1", "evaluate-2 1", "judge 1", "report"}),
        (("finetune", "b"), 2, {"finetune 0", "evaluate-2 0", "judge 0", "report"}),
        (("evaluate-2", "d"), 1, {"evaluate-2 3", "report"}),
        (("judge", "d"), 2, {"judge 1", "report"}),
        (("evaluate", "base"), 1, {"evaluate 0", "report"}),
    ],
)
@pytest.mark.parametrize("with_outcomes", [False, True])
def test_a_failed_cell_s_step_and_what_follows_from_it_get_other_keys_and_no_other_step(
    failed: tuple[str, str],
    per_pod: int,
    others: set[str],
    with_outcomes: bool,
    experiment: RunSettings,
    package: Package,
    tmp_path: Path,
) -> None:
    cluster, pods = Cluster(tmp_path / "root"), Pods({failed}, outcomes=str(tmp_path / "out") if with_outcomes else "")
    arguments = experiment.cluster_arguments(cells_per_pod=per_pod)
    first = cluster.run(package, arguments, pods)
    assert pods.done[failed] == 1
    still = cluster.run(package, arguments, pods)
    assert pods.done[failed] == 2, "it is tried again, although its failure is in the cache"
    pods.fails.clear()
    mended = cluster.run(package, arguments, pods)
    assert pods.done[failed] == 3
    assert changed(first, still) == changed(first, mended) == changed(still, mended) == others
    before = Counter(pods.done)
    assert changed(mended, cluster.run(package, arguments, pods)) == set()
    assert pods.done == before, "what is mended is not made again"


def test_what_was_finished_beside_a_failed_cell_in_its_pod_is_not_made_again(
    experiment: RunSettings, package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAMIS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(PLACE, str(tmp_path / "finished"))
    cluster, pods = Cluster(tmp_path / "root"), Pods({("finetune", "b")})
    arguments = experiment.cluster_arguments(cells_per_pod=4)
    cluster.run(package, arguments, pods)
    for name in ("artifacts", "downloads"):  # the pod's own volume goes with it
        (tmp_path / "home" / name).rename(tmp_path / f"lost-{name}") if (tmp_path / "home" / name).exists() else None
    pods.fails.clear()
    cluster.run(package, arguments, pods)
    trained = {cell: count for (step, cell), count in pods.done.items() if step == "finetune"}
    assert trained == {"a": 1, "b": 2, "c": 1, "d": 1}


def test_runs_that_differ_before_the_cells_share_no_attempts(
    experiment: RunSettings, package: Package, tmp_path: Path
) -> None:
    cluster, pods = Cluster(tmp_path / "root"), Pods({("finetune", "b")})
    cluster.run(package, experiment.cluster_arguments(), pods)
    pods.fails.clear()
    other = experiment.cluster_arguments() | {"curation": {"neighbors": 5}}
    cluster.parameters.clear()
    cluster.run(package, other, pods)
    assert not [one for one in cluster.parameters if "'attempt'" in str(one)]
    cluster.run(package, experiment.cluster_arguments(), pods)
    assert [one for one in cluster.parameters if "'attempt'" in str(one)]


def test_failures_with_other_settings_of_a_cell_do_not_change_what_it_had_made_with_these(
    experiment: RunSettings, package: Package, tmp_path: Path
) -> None:
    cluster, pods = Cluster(tmp_path / "root"), Pods()
    arguments, other = experiment.cluster_arguments(), experiment.cluster_arguments()
    first = cluster.run(package, arguments, pods)
    for group in other["cells"]:
        group["finetuning"] = [one | {"epochs": 7} for one in group["finetuning"]]
    pods.fails.add(("finetune", "b"))
    cluster.run(package, other, pods)
    pods.fails.clear()
    before = Counter(pods.done)
    assert changed(first, cluster.run(package, arguments, pods)) == set()
    assert pods.done == before
    cluster.run(package, other, pods)
    assert pods.done["finetune", "b"] == before["finetune", "b"] + 1


def test_a_base_model_is_not_evaluated_again_when_settings_change_that_it_does_not_depend_on(
    experiment: RunSettings, package: Package, tmp_path: Path
) -> None:
    cluster, pods = Cluster(tmp_path / "root"), Pods({("evaluate", "base")})
    cluster.run(package, experiment.cluster_arguments(), pods)
    pods.fails.clear()
    mended = cluster.run(package, experiment.cluster_arguments(), pods)
    other = experiment.cluster_arguments() | {"curation": {"neighbors": 5}}
    assert cluster.run(package, other, pods)["evaluate 0"] == mended["evaluate 0"]
    assert pods.done["evaluate", "base"] == 2


@pytest.mark.parametrize(
    ("failed", "others"),
    [(("select", "a"), {"select", "report"}), (("score", "perplexity"), {"score", "select", "report"})],
)
def test_a_failed_subset_and_failed_scores_are_made_again(
    failed: tuple[str, str], others: set[str], tmp_path: Path
) -> None:
    subsets = [{"name": "a", "strategy": "random", "size": 10}, {"name": "b", "strategy": "perplexity", "size": 10}]
    values = {name: value for name, value in RUN.items() if name not in ("finetuning", "evaluation", "judging")}
    settings = RunSettings.model_validate(values | {"subsets": subsets})
    package = package_of(settings, tmp_path)
    cluster, pods = Cluster(tmp_path / "root"), Pods({failed})
    first = cluster.run(package, settings.cluster_arguments(), pods)
    pods.fails.clear()
    assert changed(first, cluster.run(package, settings.cluster_arguments(), pods)) == others
    assert pods.done[failed] == 2
