"""What is read of runs on Kubeflow, in forms that no recorded run has."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tamis.core.errors import MissingExtraError
from tamis.core.failures import Failure
from tamis.kubeflow import require_whole
from tamis_pipelines.runs.cells import failed_cells
from tamis_pipelines.runs.loops import Lists, names_of
from tamis_pipelines.runs.reasons import reasons_of
from tamis_pipelines.runs.steps import Status, Step, Work, steps_of
from tamis_pipelines.runs.text import progress_of
from tamis_pipelines.runs.words import words_of
from tamis_pipelines.runs.workflow import Workflow
from tamis_pipelines.server import Connection, KubeflowError, Server


def test_several_failed_cells_are_counted_where_kubernetes_has_cut_their_names() -> None:
    words = "12 of the results could not be made; all others are finished and in the report:\n  model of 'a': no sp"
    count, cells = failed_cells(words)
    assert (count, len(cells)) == (12, 1)
    work = Work((), Status.FAILED, words=words)
    steps = [Step("require-all-cells", "require-all-cells", (work,))]
    assert [reason.words for reason in reasons_of(workflow_of_groups(), steps)] == [
        "no sp", "11 more cells failed; see the report",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("item", "names"),
    [
        ({"name": "gpt"}, ("gpt",)),
        ({"name": "svc", "shard": "2/3"}, ("svc 2/3",)),
        ({"finetuning": {"model": "m"}, "subset": {"name": "ds2-s1"}}, ("ds2-s1",)),
        ([{"subset": {"name": "a"}}, {"subset": {"name": "b"}}], ("a", "b")),
        ({"subset": [{"name": "a"}, {"name": "b"}], "finetuning": [{}, {}]}, ("a", "b")),
        ("a", ("a",)),
        (3.0, ()),
    ],
)
def test_an_item_of_a_loop_is_named_by_its_settings(item: object, names: tuple[str, ...]) -> None:
    assert names_of(item) == names


def test_the_words_of_the_step_that_requires_all_cells_are_read_as_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = tmp_path / "reason"
    reason.touch()
    monkeypatch.setenv("TAMIS_REASON_FILE", str(reason))
    failures = [
        Failure(name="toomany", stage="selection", reason="too many\n  allowed: at most 200\n  to do:   ask for fewer"),
        Failure(name="base", stage="evaluation", reason="no such task"),
    ]
    with pytest.raises(SystemExit):
        require_whole(failures)
    count, cells = failed_cells(words_of(f"main: Error (exit code 1): {reason.read_text()}"))
    assert count == 2
    assert [(cell.name, cell.artifact, cell.reason) for cell in cells] == [
        (failure.name, failure.stage, failure.reason) for failure in failures
    ]


def task(name: str, template: str, about: dict[str, object] | None = None) -> dict[str, object]:
    """A task of a workflow, with Kubeflow's description of it."""
    described = [{"name": "task", "value": json.dumps(about)}] if about is not None else []
    return {"name": name, "template": template, "arguments": {"parameters": described}}


def workflow_of_groups() -> Workflow:
    """A workflow without nodes: its step `start-run` numbers the cells, and others work for several of them."""
    cells = [{"subset": [{"name": "a"}, {"name": "b"}]}, {"subset": [{"name": "c"}]}]
    values = {"cells": cells, "outcomes": "s3://x", "base_tolerations": [{"key": "gpu"}]}
    config = {"name": "runtime-config", "value": json.dumps({"parameterValues": values})}
    given = {name: {"componentInputParameter": f"pipelinechannel--{name}"} for name in values}
    made = {"taskOutputParameter": {"producerTask": "start-run", "outputParameterKey": "cells"}}
    loop = {
        "inputs": {"parameters": {"pipelinechannel--start-run-cells": made}},
        "parameterIterator": {"items": {"inputParameter": "pipelinechannel--start-run-cells"}},
    }
    dags: dict[str, list[dict[str, object]]] = {
        "entrypoint": [
            {"name": "root-driver", "template": "system-dag-driver", "arguments": {"parameters": [config]}},
            task("start-run-driver", "system-container-driver", {"inputs": {"parameters": given}}),
            task("start-run", "executor") | {"depends": "start-run-driver.Succeeded"},
            task("select-driver", "system-container-driver", {"inputs": {"parameters": {"cells": made}}})
            | {"depends": "start-run.Succeeded"},
            task("select", "executor") | {"depends": "select-driver.Succeeded"},
            task("for-loop-1", "iterator") | {"depends": "select.Succeeded"},
        ],
        "iterator": [task("iteration-driver", "system-dag-driver", loop), task("iteration-iterations", "iteration")],
        "iteration": [task("iteration-item-driver", "system-dag-driver"), task("iteration-item", "body")],
        "body": [task("finetune-driver", "system-container-driver", {}), task("finetune", "executor")],
        "executor": [task("executor", "pod")],
    }
    templates = [{"name": name, "dag": {"tasks": tasks}} for name, tasks in dags.items()]
    text = {"metadata": {"name": "w"}, "spec": {"templates": templates, "entrypoint": "entrypoint"}}
    return Workflow.parse(json.dumps(text))


def test_steps_for_groups_of_cells_name_each_of_them() -> None:
    steps = steps_of(workflow_of_groups(), ended=False)
    assert [(step.title, [work.names for work in step.works]) for step in steps] == [
        ("start-run", [()]),
        ("select", [("a", "b", "c")]),
        ("finetune", [("a", "b"), ("c",)]),
    ]


@pytest.mark.parametrize(
    ("loop", "names"),
    [
        ({"parameterIterator": {"items": {"inputParameter": "pipelinechannel--elsewhere"}}}, ("2",)),
        ({"parameterIterator": {"items": {"raw": '[{"name": "x"}, {"name": "y"}]'}}}, ("y",)),
        ({}, ("2",)),
    ],
)
def test_an_iteration_of_an_unknown_list_has_its_number(loop: dict[str, object], names: tuple[str, ...]) -> None:
    assert Lists(workflow_of_groups()).loop(loop).names(1) == names


def test_groups_of_cells_are_counted_by_cell() -> None:
    works = (
        Work(("a", "b"), Status.DONE, failed=("b",)),
        Work(("c", "d"), Status.RUNNING),
        Work(("e", "f"), Status.WAITING),
    )
    shown = progress_of(Step("select", "select", works, several=True))
    assert shown == "1/6; 2 running: c and d; 1 failed: b"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("main: Error (exit code 1): no such bucket\n  to do:   make it", "no such bucket\n  to do:   make it"),
        ("Error (exit code 1): older Argo", "older Argo"),
        ("main: Error (exit code 137)", "the container ended with exit code 137 and left no message"),
        ("OOMKilled (exit code 137)", "the pod needed more memory than its limit (OOMKilled (exit code 137))"),
        ("pod deleted", "its pod was deleted"),
        ("Pod was active on the node longer than the specified deadline",) * 2,
    ],
)
def test_the_message_of_a_pod_is_told_in_words(message: str, words: str) -> None:
    assert words_of(message) == words


def test_a_server_without_an_address_is_an_error() -> None:
    with pytest.raises(KubeflowError):
        Connection(Server(""))


def test_a_client_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kfp_server_api", None)
    with pytest.raises(MissingExtraError):
        Connection(Server("http://127.0.0.1:1"))
