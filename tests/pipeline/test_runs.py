"""`tamis status` and `tamis stop`: the ends of eight real runs, replayed over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tamis.cli import main
from tamis_pipelines.runs import following
from tamis_pipelines.runs.run import State
from tamis_pipelines.runs.text import ending
from tamis_pipelines.server import Connection, KubeflowError, Server
from tests.pipeline.recorded import WRAPPERS, Case, RecordedServer, Serve, look, progress, without_pods
from tests.pipeline.server import KubeflowServer
from tests.recordings import CASES


def tamis(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


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
    assert sharded["rate"] == "3/3; svc 1/3: 2 attempts (its pod was deleted)"
    cut_short = progress(look(*serve("too-large")))
    assert cut_short["rate"] == "0/2; 2 unfinished: gpt and mistral"
    assert cut_short["report"] == "not run"
    assert progress(look(*serve("terminated")))["embed"] == "unfinished"


@pytest.mark.parametrize(
    ("name", "reused", "without_cache"),
    [
        ("failed-cell", False, True),
        ("cached-failure", False, True),
        ("terminated", True, False),
        ("too-large", False, False),  # the same settings fail again
        ("wrong-credentials", False, False),  # nothing is finished
        ("experiment", False, False),
    ],
)
def test_the_advice_on_another_run_can_help(serve: Serve, name: str, reused: bool, without_cache: bool) -> None:
    screen = "\n".join(ending(look(*serve(name))))
    assert ("if you submit the same settings again" in screen, "--no-cache" in screen) == (reused, without_cache)
    assert ("kubeflow.compiled.cells_per_pod" in screen) == (name == "too-large")


def test_the_log_is_that_of_the_pod_that_failed(serve: Serve) -> None:
    case, server = serve("wrong-credentials")
    screen = "\n".join(ending(look(case, server)))
    # The pod's name as Argo makes it: the workflow, the template, and the hash in the node's id.
    pod = "data-selection-dlw2s-metadata-0-3-retry-system-container-impl-2998847076"
    assert f"kubectl -n kubeflow logs {pod} -c main" in screen
    assert f"{server.url}/k8s/pod/logs?podname={pod}&podnamespace=kubeflow&createdat=2026-11-30" in screen
    assert screen.index("pool:") < screen.index("note-outcome:"), "the first failure first"


def test_a_pod_that_waits_for_a_node_says_so(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    case, server = serve("experiment", at="2026-11-30T00:22:00Z")
    case.packed = False
    answer = case.v1beta1_answer()
    workflow = json.loads(answer["pipeline_runtime"]["workflow_manifest"])
    for node in workflow["status"]["nodes"].values():
        if node["type"] == "Pod" and node["phase"] == "Running":
            node |= {"phase": "Pending", "message": "Unschedulable: 0/1 nodes are available"}
    answer["pipeline_runtime"]["workflow_manifest"] = json.dumps(workflow)
    monkeypatch.setattr(case, "v1beta1_answer", lambda: answer)
    shown = progress(look(case, server))["finetune"]
    assert shown.startswith("0/3; 2 pending: ds2-16-gpt-s42 and random-16-s42 (Unschedulable: ")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("lacks", [{"v1beta1": 404}, {"manifest": False}], ids=["no v1beta1", "no manifest"])
def test_a_server_without_the_manifest_gives_the_best_of_the_rest(
    serve: Serve, name: str, lacks: dict[str, int]
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
    case.v1beta1 = 501
    reasons = {reason.what: reason.words for reason in look(case, server).reasons}
    assert reasons == {"pool": "also here", "note-outcome": "the folder is not there"}
    case.errors = {"pool": "the same", "note-outcome": "the same"}
    assert {reason.what for reason in look(case, server).reasons} == {"pool, note-outcome"}
    case.errors = {"": "the node was lost"}
    assert [reason.words for reason in look(case, server).reasons] == ["the node was lost"]


def test_a_server_that_is_away_is_not_taken_for_one_without_the_manifest(serve: Serve) -> None:
    case, server = serve("failed-cell", v1beta1=503)
    with pytest.raises(KubeflowError) as raised:
        look(case, server)
    assert raised.value.away
    case.v1beta1 = 500  # of this request alone
    assert look(case, server).unread


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


@pytest.mark.parametrize("field", ["type", "phase", "id", "templateName", "name"])
def test_nodes_without_a_field_do_not_hide_the_run(serve: Serve, monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    case, server = serve("failed-cell")
    workflow = case.workflow()
    for node in workflow["status"]["nodes"].values():
        del node[field]
    monkeypatch.setattr(case, "workflow", lambda: workflow)
    run = look(case, server)
    assert (run.state, bool(run.steps), bool(run.unread)) == (State.FAILED, True, True)


def test_a_message_cannot_change_the_terminal_or_end_the_command(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    case, server = serve("wrong-credentials")
    workflow = case.workflow()
    for node in workflow["status"]["nodes"].values():
        if node["type"] == "Pod" and node["phase"] == "Failed":
            node["message"] = "main: Error (exit code 1): \x1b[2Jbad\x1b]0;title\x07\r \ud800 資料"
    monkeypatch.setattr(case, "workflow", lambda: workflow)
    result = tamis("status", case.run_id, "--host", server.url)
    assert result.exit_code == 1
    assert "資料" in result.output
    assert not {"\x1b", "\x07", "\r", "\ud800"} & set(result.output)


def test_a_pod_without_enough_memory_says_so(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    case, server = serve("wrong-credentials")
    workflow = case.workflow()
    for node in workflow["status"]["nodes"].values():
        if node["type"] == "Pod" and node["phase"] == "Failed":
            node["message"] = "main: OOMKilled (exit code 137)"
    monkeypatch.setattr(case, "workflow", lambda: workflow)
    assert all("more memory" in reason.words for reason in look(case, server).reasons)


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
    assert (missing.exit_code, "code:    kubeflow" in missing.output) == (78, True)
    for more in ([], ["--follow"]):
        unknown = tamis("status", "00000000-0000-0000-0000-000000000000", "--host", all_cases.url, *more)
        assert (unknown.exit_code, "code:    kubeflow" in unknown.output) == (78, True)
        assert "run: http" not in unknown.output, "there is no such page"


def test_a_run_of_a_schedule_is_found_by_the_name_of_the_schedule(serve: Serve) -> None:
    case, server = serve("cached", schedule="schedule-1")
    result = tamis("status", "nightly", "--host", server.url)
    assert (result.exit_code, case.run_id in result.output) == (0, True), result.output


def test_the_newest_run_of_others_is_not_stopped(all_cases: RecordedServer) -> None:
    result = tamis("stop", "newest", "--host", all_cases.url, "--experiment", "of-others")
    assert result.exit_code == 78
    assert "--experiment" in result.output
    assert not [request for request in all_cases.asked if request.startswith("POST")]


def test_stop_ends_a_run_that_goes_on_and_leaves_one_that_has_ended(serve: Serve) -> None:
    case, server = serve("terminated", at="2026-11-30T00:11:50Z")
    result = tamis("stop", "newest", "--host", server.url)
    assert (result.exit_code, case.stopped) == (0, True), result.output
    assert f"tamis status {case.run_id} --follow --host {server.url}" in result.output
    assert result.output.index("term: ") < result.output.index("is being stopped")
    ended, server = serve("cached")
    result = tamis("stop", "newest", "--host", server.url)
    assert (result.exit_code, ended.stopped) == (0, False)
    assert "SUCCEEDED" in result.output


def test_a_run_that_goes_on_has_an_exit_code_of_its_own(serve: Serve) -> None:
    case, server = serve("experiment", at="2026-11-30T00:20:00Z")
    once = tamis("status", "newest", "--host", server.url)
    assert (once.exit_code, "exp3: RUNNING for " in once.output) == (3, True)
    late = tamis("status", "newest", "--host", server.url, "--follow", "--every", "0.1", "--timeout", "0.2")
    assert (late.exit_code, f"tamis status {case.run_id} --follow --host {server.url}" in late.output) == (3, True)


def test_a_server_that_goes_away_is_one_warning_and_the_state_is_then_unknown(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, server = serve("experiment", at="2026-11-30T00:20:00Z")
    answer, asked = case.v1beta1_answer(), list[int]()

    def twice() -> dict[str, Any]:
        asked.append(1)
        case.v1beta1 = 200 if len(asked) <= 2 else 503
        return answer

    monkeypatch.setattr(case, "v1beta1_answer", twice)
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
    result = tamis("status", "newest", "--follow", "--every", "0.1", "--timeout", "0.5")
    assert result.exit_code == 3, result.output
    assert result.output.count("warning: ") == 1
    assert "RUNNING for" not in result.output
    assert "unknown" in result.output
    assert f"tamis status {case.run_id} --follow\n" in result.output, "the environment has the server's address"


def test_a_run_that_is_followed_may_be_unknown_for_a_while(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    case, server = serve("experiment", at="2026-11-30T00:20:00Z")
    now, asked = [0.0], server.asked

    def sleep(seconds: float) -> None:
        now[0] += seconds
        server.know(*([case] if now[0] > back else []))

    monkeypatch.setattr(following.time, "sleep", sleep)
    monkeypatch.setattr(following.time, "monotonic", lambda: now[0])
    back, connection = 25.0, Connection(Server(server.url))
    case.later = [case.at, None]
    assert following.follow(connection, case.run_id, lambda _: None).run.state is State.SUCCEEDED
    now[0], back, case.at = 0.0, 1000.0, "2026-11-30T00:20:00Z"
    server.know(case)
    with pytest.raises(KubeflowError) as raised:
        following.follow(connection, case.run_id, lambda _: None)
    assert (raised.value.missing, raised.value.permanent, now[0]) == (True, True, 60.0)
    server.know()
    before = len(asked)
    with pytest.raises(KubeflowError):
        following.follow(connection, case.run_id, lambda _: None)
    assert len(asked) == before + 1, "a run that it never knew is not waited for"


def test_pods_that_were_retried_for_one_reason_are_one_remark(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    case, server = serve("experiment")
    workflow = case.workflow()
    nodes = workflow["status"]["nodes"]
    for node in [*nodes.values()]:
        if node["type"] == "Pod" and "finetune(0)" in node["name"] and node["name"].endswith("executor(0)"):
            node |= {"phase": "Failed", "message": "pod deleted"}
            key = f"{node['id']}-again"
            nodes[key] = node | {"name": node["name"][:-3] + "(9)", "phase": "Succeeded", "message": "", "id": key}
    monkeypatch.setattr(case, "workflow", lambda: workflow)
    shown = progress(look(case, server))["finetune"]
    assert "random-16-s42 and length-16-s42: 2 attempts (its pod was deleted)" in shown


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
        assert tamis("status", run, "--host", server.url).exit_code == 78
        monkeypatch.setenv("TAMIS_KUBEFLOW_TOKEN", "s3cret-token")
        result = tamis("status", run, "--host", server.url)
        assert (result.exit_code, "s3cret-token" in result.output) == (0, False)
    finally:
        server.close()
