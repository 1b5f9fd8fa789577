"""Runs on Kubeflow, played by the components' own code with what a real server gave to their pods."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl
from kfp.dsl import PipelineTaskFinalStatus

from tamis.cluster.component import note_outcome, require_all_cells, start_run
from tamis.cluster.workflow import nodes_of
from tamis.core.errors import InputError
from tamis.core.failures import Failure, failure_in, leave_failure
from tamis.core.run_place import RETRIES, WORKFLOW
from tamis.core.steps import Step, run_step
from tamis.kubeflow import execute, execute_cell
from tests.artifacts import NoSettings
from tests.recordings import recorded

Body = dict[str, Any]
_WORDS = "main: Error (exit code 1): "  # what Argo puts before a pod's own last words
_CELL = re.compile(
    r"^  (?P<cell>\S+), (?P<stage>\w+): (?P<reason>.*?)(?=\n  \S+, \w+: |\n  to do:   mend|\Z)", re.M | re.S
)


def workflow_of(case: str) -> Body:
    """The recorded workflow of a run after its end."""
    workflow: Body = json.loads(recorded(case, "v1beta1")["pipeline_runtime"]["workflow_manifest"])
    return workflow


@dataclass
class Run:
    """A run, and what Kubeflow gives to its steps.

    Attributes:
        root: URI of the pipeline root.
        outcomes: folder for outcomes.
        patch: sets the environment of a step.
        id, name, workflow: of the run.
    """

    root: str
    outcomes: str
    patch: pytest.MonkeyPatch
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    name: str = "a run"
    workflow: str = "data-selection-abcde"

    def output(self, step: str, name: str, execution: str = "") -> dsl.Artifact:
        """A step's output, with a URI as Kubeflow makes it."""
        execution = execution or str(uuid.uuid4())
        kind = dsl.Markdown if name == "outcome" else dsl.Artifact
        return kind(name=name, uri=f"{self.root}/data-selection/{self.id}/{step}/{execution}/{name}")

    def start(self) -> None:
        started = self.output("start-run", "started")
        self.patch.setenv(WORKFLOW, self.workflow)
        start_run.python_func(name=self.name, started=started, outcomes=self.outcomes)

    def step(self, step: str, *errors: Exception | None, cell: str | None = None) -> list[dsl.Artifact]:
        """Run a step in as many attempts as there are `errors`; None: it succeeds. With `cell`, it is of that cell."""
        execution, made = str(uuid.uuid4()), []
        for number, error in enumerate(errors):
            self.patch.setenv(RETRIES, str(number))
            made.append(self.output(step, "ratings", execution))

            def run(settings: NoSettings, *, out: str, error: Exception | None = error) -> Any:
                if error is not None:
                    raise error
                return run_step("test", "pool", settings, _write, out=out)

            given: Body = {"out": made[-1], "metrics": dsl.Metrics(uri=made[-1].uri), "settings": {"variant": step}}
            ends = (SystemExit, type(error)) if error is not None else ()
            with suppress(*ends):
                if cell is None:
                    execute(run, NoSettings, **given)
                else:
                    execute_cell(run, NoSettings, source=None, name=cell, **given)
        self.patch.delenv(RETRIES)
        return made

    def require(self, *results: dsl.Artifact) -> bool:
        """Run the step that requires all cells; returns whether it succeeded."""
        report, finished = self.output("report", "report"), self.output("require-all-cells", "finished")
        failures = [failure for result in results if (failure := failure_in(result.path))]
        failed = {(one.name, one.stage): one.model_dump(mode="json", exclude={"settings"}) for one in failures}

        def write(step: Step[NoSettings]) -> None:
            step.facts["failed"] = [*failed.values()]
            (step.out / "report.html").touch()

        run_step("reporting", "report", NoSettings(), write, out=report.path)
        try:
            require_all_cells.python_func(report=report, finished=finished, outcomes=self.outcomes)
        except SystemExit:
            return False
        return True

    def note(self, state: str) -> str:
        """Run the last step; returns its page."""
        outcome = self.output("note-outcome", "outcome")
        status = PipelineTaskFinalStatus(
            state=state,
            pipeline_job_resource_name=self.workflow,
            pipeline_task_name="exit-handler-1",
            error_code=None,
            error_message=None,
        )
        note_outcome.python_func(status=status, name=self.name, outcome=outcome, outcomes=self.outcomes)
        return Path(outcome.path).read_text(encoding="utf-8")

    @property
    def file(self) -> Body:
        """The outcome in the folder for outcomes."""
        noted: Body = json.loads(Path(self.outcomes, f"{self.id}.json").read_text(encoding="utf-8"))
        return noted


def play(run: Run, workflow: Body, *, folder: Path) -> str | None:
    """Play a recorded run: each pod does what its node says. Returns the page; None if the last step never ran.

    The recorded pipelines had no step `start-run`. In those of today it is among the first, and is never reused.
    `folder` is for results from Kubeflow's cache, which no step of the run makes.
    """
    page = None
    run.start()
    for step, node in _executors(workflow):
        words = node.get("message", "")
        if step == "note-outcome":
            page = run.note(_status_of(node)["state"])
        elif step == "require-all-cells":
            assert run.require(*_results(words, folder)) == (node["phase"] == "Succeeded")
        elif node["phase"] == "Succeeded":
            run.step(step, None)
        elif words.startswith(_WORDS):
            run.step(step, InputError(words.removeprefix(_WORDS)))
    return page


def _executors(workflow: Body) -> Iterator[tuple[str, Body]]:
    """Every pod that ran a step, with the step's name, in the order in which they started."""
    nodes = sorted(nodes_of(workflow).values(), key=lambda node: node.get("startedAt") or "")
    for node in nodes:
        before, _, last = node["name"].rpartition(".")
        if node["type"] == "Pod" and last.startswith("executor("):
            yield re.sub(r"\(\d+\)$", "", before.rpartition(".")[2]), node


def _results(words: str, folder: Path) -> list[dsl.Artifact]:
    """The results of all cells, from what require-all-cells said of those that failed."""
    made = [dsl.Artifact(name="selection", uri=str(folder / "whole"))]
    for number, cell in enumerate(_CELL.finditer(words)):
        made.append(dsl.Artifact(name=cell["stage"], uri=str(folder / str(number))))
        leave_failure(made[-1].path, Failure(name=cell["cell"], stage=cell["stage"], reason=cell["reason"]))
    return made


def _status_of(node: Body) -> Body:
    """What Kubeflow told the last step."""
    given = {one["name"]: one.get("value") for one in node["inputs"]["parameters"]}
    command = json.loads(given["pod-spec-patch"])["containers"][0]["command"]
    said = json.loads(command[command.index("--executor_input") + 1])
    status: Body = said["inputs"]["parameterValues"]["status"]
    return status


def _write(step: Step[NoSettings]) -> None:
    (step.out / "file").write_text("made")
