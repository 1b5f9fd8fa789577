"""`tamis status` and `tamis stop`: what eight real runs look like to a user, replayed over HTTP."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tamis.cli import main
from tamis.core.failures import Failure
from tamis.kubeflow import REASON_FILE, require_whole
from tamis_pipelines.runs import following
from tamis_pipelines.runs.cells import failed_cells
from tamis_pipelines.runs.loops import Lists, Loop, names_of
from tamis_pipelines.runs.reading import read
from tamis_pipelines.runs.reasons import reasons_of
from tamis_pipelines.runs.run import Run, State
from tamis_pipelines.runs.steps import Status, Step, Work
from tamis_pipelines.runs.text import ending, progress_of, table
from tamis_pipelines.runs.words import words_of
from tamis_pipelines.runs.workflow import Workflow
from tamis_pipelines.server import Connection, KubeflowError, Server
from tests.pipeline.recorded import CASES, Case, RecordedServer
from tests.pipeline.server import KubeflowServer

WRAPPERS = re.compile(
    r"\(\d+(:\d+)?\)|-driver\b|\bexecutor\b|\biteration|for-loop|exit-handler|onExit|\broot\b|no reason given"
)
OF_THE_POD = ("    log:     kubectl", "    stored:  http")  # lines with names of pods, which have those of templates

Serve = Callable[..., tuple[Case, RecordedServer]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Serve]:
    """Replays a case on a server of its own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KF_PIPELINES_ENDPOINT", "TAMIS_KUBEFLOW_TOKEN", "TAMIS_KUBEFLOW_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    running: list[RecordedServer] = []

    def start(name: str, **changes: object) -> tuple[Case, RecordedServer]:
        case = Case(name, **changes)  # type: ignore[arg-type]
        running.append(RecordedServer(case))
        return case, running[-1]

    yield start
    for server in running:
        server.close()


def tamis(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


def look(case: Case, server: RecordedServer) -> Run:
    return read(Connection(Server(server.url)), case.run_id)


def without_pods(screen: str) -> str:
    return "\n".join(line for line in screen.splitlines() if not line.startswith(OF_THE_POD))


# The true state of each case, its exit code, and what its reasons must say.
TRUTH = {
    "experiment": (State.SUCCEEDED, 0, ()),
    "cached": (State.SUCCEEDED, 0, ()),
    "sharded-pod-deleted": (State.SUCCEEDED, 0, ()),
    "failed-cell": (
        State.FAILED, 1, ("select of toomany:", "strategy random: 5,000 samples asked of the pool", "at most 200"),
    ),
    "cached-failure": (
        State.FAILED, 1,
        ("evaluate of base, ds2-16-gpt-s42, random-16-s42 and length-16-s42", "4 times", "'/cache/hf/datasets'"),
    ),
    "wrong-credentials": (State.FAILED, 1, ("pool:", "SignatureDoesNotMatch", "check the bucket")),
    "terminated": (State.STOPPED, 1, ("stopped by hand at 2026-11-30T00:11:59Z",)),
    "too-large": (State.FAILED, 1, ("217,459", "215,000")),
}  # fmt: skip


@pytest.mark.parametrize("packed", [None, True, False], ids=["recorded", "packed", "unpacked"])
@pytest.mark.parametrize("name", CASES)
def test_the_last_screen_has_the_true_state_and_the_true_reason(serve: Serve, name: str, packed: bool | None) -> None:
    case, server = serve(name, packed=packed)
    result = tamis("status", case.run_id, "--host", server.url)
    state, code, reasons = TRUTH[name]
    assert result.exit_code == code, result.output
    assert result.output.startswith(f"run: {server.url}/#/runs/details/{case.run_id}\n")
    assert f"{case.display_name}: {state}" in result.output
    for reason in reasons:
        assert result.output.count(reason) == 1
    if not reasons:
        assert look(case, server).reasons == ()
    assert not WRAPPERS.search(without_pods(result.output)), WRAPPERS.search(without_pods(result.output))
    assert case.workflow()["metadata"]["name"] not in without_pods(result.output) or name == "too-large"


def progress(run: Run) -> dict[str, str]:
    return {step.title: progress_of(step) for step in run.steps}


def test_steps_say_which_rater_and_which_cell_and_what_came_from_the_cache(serve: Serve) -> None:
    shown = progress(look(*serve("failed-cell")))
    assert list(shown) == [
        "pool", "embed", "find-neighbors", "rate", "curate", "select", "report", "require-all-cells", "note-outcome",
    ]  # fmt: skip
    assert shown["pool"] == "from the cache"
    assert shown["rate"] == "2/2; all from the cache"
    assert shown["select"] == "1/2; 1 from the cache; 1 failed: toomany"
    failed = progress(look(*serve("cached-failure")))
    assert failed["evaluate (bases)"] == "0/1; 1 failed: base"
    assert failed["evaluate (cells)"] == "0/3; 3 failed: ds2-16-gpt-s42, random-16-s42 and length-16-s42"
    sharded = progress(look(*serve("sharded-pod-deleted")))
    assert sharded["rate"] == "3/3; svc 1/3: 2 tries (its pod was deleted)"
    cut_short = progress(look(*serve("too-large")))
    assert cut_short["rate"] == "0/2; 2 unfinished: gpt and mistral"
    assert cut_short["report"] == "not run"
    assert progress(look(*serve("terminated")))["embed"] == "unfinished"


def test_the_log_is_that_of_the_pod_that_failed(serve: Serve) -> None:
    case, server = serve("wrong-credentials")
    screen = "\n".join(ending(look(case, server)))
    # The pod's name as Argo makes it: the workflow, the template, and the hash in the node's id.
    pod = "data-selection-dlw2s-metadata-0-3-retry-system-container-impl-2998847076"
    assert f"kubectl -n kubeflow logs {pod} -c main" in screen
    assert f"{server.url}/k8s/pod/logs?podname={pod}&podnamespace=kubeflow&createdat=2026-11-30" in screen
    assert screen.index("pool:") < screen.index("note-outcome:"), "the first failure first"


STATES_IN_ORDER = (Status.WAITING, Status.RUNNING, Status.DONE)


def rank(work: Work) -> int:
    reached = {Status.CACHED: Status.DONE, Status.OMITTED: Status.DONE, Status.FAILED: Status.DONE}
    return STATES_IN_ORDER.index(reached.get(work.status, work.status))


@pytest.mark.parametrize("name", CASES)
def test_at_every_time_progress_is_that_of_the_run_then(serve: Serve, name: str) -> None:
    case, server = serve(name)
    last = look(case, server)
    titles = [step.title for step in last.steps]
    works = {(step.title, work.names): work for step in last.steps for work in step.works}
    before = dict.fromkeys(works, 0)
    times = case.times()
    for case.at in times[:-1:3]:
        now = look(case, server)
        assert now.state in (State.PENDING, State.RUNNING, State.STOPPING)
        assert now.reasons == ()
        assert [step.title for step in now.steps] == titles, "all steps are there from the beginning"
        assert not WRAPPERS.search("\n".join(table(now)))
        for step in now.steps:
            for work in step.works:
                end = works[step.title, work.names]
                assert rank(work) >= before[step.title, work.names], "nothing goes back"
                before[step.title, work.names] = rank(work)
                if work.status in (Status.DONE, Status.CACHED, Status.FAILED):
                    assert work.status == end.status or end.status is Status.UNFINISHED
                if work.began:
                    assert work.began <= str(case.at)
                if work.status is Status.WAITING:
                    assert not end.began or end.began > str(case.at)
    assert any(before.values())


def test_following_writes_a_line_for_each_change_only(serve: Serve) -> None:
    case, server = serve("experiment", at="2026-11-30T00:18:20Z")
    times = case.times()
    case.later = [*sorted([*times[3::3], *times[3:30:3]]), None]  # some times twice, so that nothing is new
    result = tamis("status", case.run_id, "--host", server.url, "--follow", "--every", "0.1")
    assert result.exit_code == 0, result.output
    address, *lines = result.output.splitlines()
    assert address == f"run: {server.url}/#/runs/details/{case.run_id}"
    assert lines.count("run: running") == 1
    assert "rate: 0/2; 2 running: gpt and mistral" in lines
    assert "finetune: 0/3; 2 running: ds2-16-gpt-s42 and random-16-s42" in lines
    assert any(line.startswith("evaluate (cells): 1/3; ") for line in lines)
    assert len(lines) <= 45, "it was 143 lines"
    assert all(one != other for one, other in pairwise(lines))
    assert not WRAPPERS.search(result.output)


def test_packed_nodes_go_on_being_read_while_the_tasks_of_v2beta1_stand_still(serve: Serve) -> None:
    case, server = serve("experiment", packed=True, at="2026-11-30T00:24:00Z")
    assert progress(look(case, server))["select"] == "3/3"
    case.at = "2026-11-30T00:19:00Z"
    assert progress(look(case, server))["select"] == "waiting"


def test_the_table_in_a_terminal_has_a_row_for_each_step(serve: Serve) -> None:
    _, server = serve("failed-cell")
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "tamis", "status", "few", "--host", server.url, "--follow", "--every", "0.1"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    with subprocess.Popen(command, stdout=slave, stderr=subprocess.STDOUT, env=environment) as process:
        os.close(slave)
        screen = _everything(master)
    assert process.returncode == 1
    rows = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen).splitlines()
    drawn = [row.strip() for row in rows if row.strip().startswith("select  ")]
    assert set(drawn) == {"select             1/2; 1 from the cache; 1 failed: toomany"}
    assert "few: FAILED after 3 min 2 s" in rows
    assert not WRAPPERS.search(without_pods("\n".join(rows)))


def _everything(master: int) -> str:
    seen = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # Linux' way to say that nobody writes any more
            part = b""
        if not part:
            os.close(master)
            return seen.decode()
        seen += part


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("lacks", [{"v1beta1": False}, {"manifest": False}], ids=["no v1beta1", "no manifest"])
def test_a_server_without_the_manifest_gives_the_best_of_the_rest(
    serve: Serve, name: str, lacks: dict[str, bool]
) -> None:
    case, server = serve(name, **lacks)
    result = tamis("status", case.run_id, "--host", server.url)
    state, code, _ = TRUTH[name]
    assert result.exit_code == code
    assert f"{case.display_name}: {state}" in result.output
    assert "not read: " in result.output
    assert not WRAPPERS.search(result.output)
    assert {"pool", "embed"} <= {step.name for step in look(case, server).steps}


def test_a_server_that_fills_the_errors_of_tasks_is_believed_where_the_manifest_says_nothing(serve: Serve) -> None:
    case, server = serve("wrong-credentials", errors={"note-outcome": "the folder is not there", "pool": "also here"})
    reasons = {reason.what: reason.words for reason in look(case, server).reasons}
    assert "SignatureDoesNotMatch" in reasons["pool"], "Tamis' own words are better"
    assert reasons["note-outcome"] == "the folder is not there"
    case.v1beta1 = False
    reasons = {reason.what: reason.words for reason in look(case, server).reasons}
    assert reasons == {"pool": "also here", "note-outcome": "the folder is not there"}
    case.errors = {"pool": "the same", "note-outcome": "the same"}
    assert {reason.what for reason in look(case, server).reasons} == {"pool, note-outcome"}
    case.errors = {"": "the node was lost"}
    assert [reason.words for reason in look(case, server).reasons] == ["the node was lost"]


@pytest.mark.parametrize(
    "damage", ["{", '{"metadata": {}}', '{"metadata":{"name":"x"},"spec":{},"status":{"compressedNodes":"!"}}']
)
def test_a_manifest_in_another_form_is_said_and_does_not_hide_the_run(
    serve: Serve, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, server = serve("failed-cell")
    monkeypatch.setattr(case, "v1beta1_answer", lambda: {"pipeline_runtime": {"workflow_manifest": damage}})
    run = look(case, server)
    assert run.state is State.FAILED
    assert run.steps
    assert run.unread


@pytest.mark.parametrize(
    ("driver", "what"),
    [("pool-driver", "pool"), ("exit-handler-1-driver", "Kubeflow's own pod that starts pool, ")],
)
def test_a_pod_of_kubeflow_that_fails_is_told_by_the_step_that_it_starts(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, driver: str, what: str
) -> None:
    case, server = serve("wrong-credentials")
    workflow = case.workflow()
    nodes = workflow["status"]["nodes"]
    behind = "pool(0)" if driver == "pool-driver" else "exit-handler-1"
    for key, node in list(nodes.items()):
        if f"{driver}" in node["name"].rsplit(".", 1)[-1]:
            node |= {"phase": "Failed", "message": "main: Error (exit code 1): no claim tamis-models"}
        elif behind in node["name"] or node["displayName"] == behind.removesuffix("(0)"):
            del nodes[key]
    monkeypatch.setattr(case, "workflow", lambda: workflow)
    reasons = [reason for reason in look(case, server).reasons if "no claim tamis-models" in reason.words]
    assert len(reasons) == 1
    assert reasons[0].what.startswith(what)
    assert "-driver-" in reasons[0].pod, "its log is that of Kubeflow's pod"


def test_several_failed_cells_are_counted_where_kubernetes_has_cut_their_names() -> None:
    words = "12 of the results could not be made; all others are finished and in the report:\n  model of 'a': no sp"
    count, cells = failed_cells(words)
    assert (count, len(cells)) == (12, 1)
    work = Work((), Status.FAILED, words=words)
    steps = [Step("require-all-cells", "require-all-cells", (work,))]
    assert [reason.words for reason in reasons_of(workflow_with({}, {}), steps)] == [
        "no sp", "11 more cells failed; see the report",
    ]  # fmt: skip


@pytest.fixture
def all_cases(serve: Serve) -> Iterator[RecordedServer]:
    del serve  # for its environment
    server = RecordedServer(*(Case(name) for name in CASES))
    yield server
    server.close()


def test_a_run_is_found_by_its_id_its_name_or_as_the_newest(all_cases: RecordedServer) -> None:
    for run, name in (
        ("newest", "toolarge3"),
        ("few", "few"),
        (Case("cached").run_id, "selection"),
    ):
        result = tamis("status", run, "--host", all_cases.url)
        assert f"\n{name}: " in result.output, result.output
    missing = tamis("status", "nothing", "--host", all_cases.url)
    assert (missing.exit_code, "code:    kubeflow" in missing.output) == (1, True)
    unknown = tamis("status", "00000000-0000-0000-0000-000000000000", "--host", all_cases.url)
    assert (unknown.exit_code, "code:    kubeflow" in unknown.output) == (1, True)


def test_the_newest_run_of_others_is_not_stopped(all_cases: RecordedServer) -> None:
    result = tamis("stop", "newest", "--host", all_cases.url, "--experiment", "of-others")
    assert result.exit_code == 1
    assert "--experiment" in result.output
    assert not [request for request in all_cases.asked if request.startswith("POST")]


def test_stop_ends_a_run_that_goes_on_and_leaves_one_that_has_ended(serve: Serve) -> None:
    case, server = serve("terminated", at="2026-11-30T00:11:50Z")
    result = tamis("stop", "term", "--host", server.url)
    assert (result.exit_code, case.stopped) == (0, True), result.output
    assert f"tamis status {case.run_id} --follow" in result.output
    ended, server = serve("cached")
    result = tamis("stop", "newest", "--host", server.url)
    assert (result.exit_code, ended.stopped) == (0, False)
    assert "SUCCEEDED" in result.output


def test_a_run_that_goes_on_has_an_exit_code_of_its_own(serve: Serve) -> None:
    case, server = serve("experiment", at="2026-11-30T00:20:00Z")
    once = tamis("status", "newest", "--host", server.url)
    assert (once.exit_code, "exp3: RUNNING for " in once.output) == (3, True)
    late = tamis("status", "newest", "--host", server.url, "--follow", "--every", "0.1", "--timeout", "0.2")
    assert (late.exit_code, f"tamis status {case.run_id} --follow" in late.output) == (3, True)


def test_a_run_that_is_being_stopped_says_so(serve: Serve) -> None:
    assert look(*serve("terminated", at="2026-11-30T00:12:05Z")).state is State.STOPPING


def test_ctrl_c_ends_the_watching_and_not_the_run(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    case, server = serve("experiment", at="2026-11-30T00:20:00Z")

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(following.time, "sleep", interrupted)
    result = tamis("status", "newest", "--host", server.url, "--follow")
    assert (result.exit_code, case.stopped) == (130, False)
    assert f"tamis status {case.run_id} --follow" in result.output


def test_a_token_is_needed_for_reading_too_and_never_shown(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    del serve
    server = KubeflowServer()
    server.state.token = "s3cret-token"
    try:
        run = "00000000-0000-0000-0000-000000000001"
        assert tamis("status", run, "--host", server.url).exit_code == 1
        monkeypatch.setenv("TAMIS_KUBEFLOW_TOKEN", "s3cret-token")
        result = tamis("status", run, "--host", server.url)
        assert (result.exit_code, "s3cret-token" in result.output) == (0, False)
    finally:
        server.close()


# The forms that no recorded run has.


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
    monkeypatch.setenv(REASON_FILE, str(reason))
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


def workflow_with(loop: dict[str, object], step: dict[str, object]) -> Workflow:
    """A workflow whose step `start` makes a list that the loop or the step goes through."""

    def task(name: str, about: dict[str, object]) -> dict[str, object]:
        return {"name": name, "arguments": {"parameters": [{"name": "task", "value": json.dumps(about)}]}}

    cells = [{"subset": [{"name": "a"}, {"name": "b"}]}, {"subset": [{"name": "c"}]}]
    values = {"cells": cells, "outcomes": "s3://x", "base_tolerations": [{"key": "gpu"}]}
    config = {"name": "runtime-config", "value": json.dumps({"parameterValues": values})}
    given = {name: {"componentInputParameter": f"pipelinechannel--{name}"} for name in values}
    tasks = [
        {"name": "root-driver", "arguments": {"parameters": [config]}},
        task("start-driver", {"inputs": {"parameters": given}}),
        task("iteration-driver", loop),
        task("select-driver", step),
    ]
    text = {"metadata": {"name": "w"}, "spec": {"templates": [{"name": "entrypoint", "dag": {"tasks": tasks}}]}}
    return Workflow.parse(json.dumps(text))


def test_a_list_that_a_step_has_made_of_an_argument_has_the_names_of_that() -> None:
    made = {"taskOutputParameter": {"producerTask": "start", "outputParameterKey": "Output"}}
    loop = {
        "inputs": {"parameters": {"pipelinechannel--start-Output": made}},
        "parameterIterator": {"items": {"inputParameter": "pipelinechannel--start-Output"}},
    }
    step: dict[str, object] = {"inputs": {"parameters": {"cells": made, "settings": {}}}}
    lists = Lists(workflow_with(loop, step))
    assert lists.loop(loop) == Loop("cells", (("a", "b"), ("c",)))
    assert lists.cells(step) == ("a", "b", "c")


def test_a_list_that_nobody_knows_gives_numbers() -> None:
    loop: dict[str, object] = {"parameterIterator": {"items": {"inputParameter": "pipelinechannel--elsewhere"}}}
    found = Lists(workflow_with(loop, {})).loop(loop)
    assert (found.items, found.names(1)) == (None, ("2",))
    constant: dict[str, object] = {"parameterIterator": {"items": {"raw": '[{"name": "x"}]'}}}
    assert Lists(workflow_with(constant, {})).loop(constant).names(0) == ("x",)


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
