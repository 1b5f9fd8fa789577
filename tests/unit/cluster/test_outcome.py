"""Outcomes of runs on Kubeflow: the components' own code, with the final states that a real server gave."""

from __future__ import annotations

import json
import os
import random
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kfp")

from click.testing import CliRunner

from tamis.cli import main
from tamis.cluster import workflow as workflow_module
from tamis.cluster.outcomes import read_outcomes
from tamis.cluster.workflow import ask, read
from tamis.core.errors import InputError, ModelError, StorageError
from tamis.core.failures import failure_in
from tamis.core.marks import FINISHED, Finished, leave, read_marks
from tamis.core.run_place import OUTCOMES, RETRIES, place_of
from tests.certificates import private_certificate
from tests.unit.cluster.replayed import Body, Run, play, workflow_of

CELLS = ("base", "ds2-16-gpt-s42", "length-16-s42", "random-16-s42")
# State, failed cells, failed steps with the attempt.
TRUE: dict[str, tuple[str, list[tuple[str, str]], list[tuple[str, int]]]] = {
    "experiment": ("SUCCEEDED", [], []),
    "cached": ("SUCCEEDED", [], []),
    "sharded-pod-deleted": ("SUCCEEDED", [], []),
    "failed-cell": ("FAILED", [("toomany", "selection")], []),
    "cached-failure": ("FAILED", [(cell, "evaluation") for cell in CELLS], []),
    "wrong-credentials": ("FAILED", [], [("pool", 1)]),
    "terminated": ("STOPPED", [], []),
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose artifacts and outcomes are in local folders."""
    for name in (OUTCOMES, RETRIES, "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    return Run(str(tmp_path / "root"), str(tmp_path / "outcomes"), monkeypatch)


def recorded(run: Run, case: str) -> Body:
    """Let `run` be a recorded one; returns its workflow."""
    workflow = workflow_of(case)
    run.id, run.workflow = workflow["metadata"]["labels"]["pipeline/runid"], workflow["metadata"]["name"]
    run.name = workflow["metadata"]["annotations"]["pipelines.kubeflow.org/run_name"]
    return workflow


def said(outcome: Body) -> tuple[str, list[tuple[str, str]], list[tuple[str, int]]]:
    cells = sorted((cell["cell"], cell["stage"]) for cell in outcome["cells_failed"])
    return outcome["state"], cells, [(step["step"], step["attempt"]) for step in outcome["steps_failed"]]


@pytest.mark.parametrize("case", TRUE)
def test_the_outcome_of_a_recorded_run_is_true(case: str, run: Run, tmp_path: Path) -> None:
    workflow = recorded(run, case)
    page = play(run, workflow, folder=tmp_path / "cache")
    noted = run.file
    assert said(noted) == TRUE[case]
    assert (noted["run"], noted["name"], noted["workflow"]) == (run.id, run.name, run.workflow)
    assert noted["started"] <= noted["ended"]
    assert page is not None
    assert page.startswith(f"# {TRUE[case][0]}\n")
    assert all(cell["cell"] in page and cell["reason"].splitlines()[0] in page for cell in noted["cells_failed"])
    assert all(step["words"].splitlines()[0] in page for step in noted["steps_failed"])
    reported = any(
        "require-all-cells(0).executor" in node["name"] for node in workflow["status"].get("nodes", {}).values()
    )
    assert noted["report"].endswith("/report/report.html" if reported or noted["state"] == "SUCCEEDED" else "")


def test_a_run_that_became_too_large_has_no_end(run: Run, tmp_path: Path) -> None:
    assert play(run, recorded(run, "too-large"), folder=tmp_path / "cache") is None
    (outcome,) = read_outcomes(run.outcomes)
    assert (outcome.run, outcome.name, outcome.state) == (run.id, "toolarge3", "UNFINISHED")
    assert (outcome.workflow, outcome.ended) == (run.workflow, "")


def test_what_is_beside_the_artifacts_is_enough_for_the_page(run: Run, tmp_path: Path) -> None:
    run.outcomes = ""
    assert play(run, recorded(run, "wrong-credentials"), folder=tmp_path / "cache").startswith("# FAILED\n")  # type: ignore[union-attr]
    assert play(run, recorded(run, "cached"), folder=tmp_path / "cache").startswith("# SUCCEEDED\n")  # type: ignore[union-attr]


def test_without_a_place_for_marks_only_what_kubeflow_is_sure_of_is_said(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere(run, tmp_path, monkeypatch)
    for told, state in (("FAILED", "FAILED"), ("COMPLETE", "SUCCEEDED"), ("RUNNING", "UNKNOWN")):
        run.id = run.id[:-1] + str(len(told))
        assert run.note(told).startswith(f"# {state}\n")


def nowhere(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Artifacts where Tamis cannot write, as on a Kubeflow that nobody has configured, and no folder for outcomes."""
    monkeypatch.setattr("kfp.dsl.types.artifact_types._MINIO_LOCAL_MOUNT_PREFIX", f"{tmp_path}/minio/")
    run.root, run.outcomes = "minio://mlpipeline/v2/artifacts", ""


@pytest.fixture
def cluster(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Body]]:
    """The API server that the pods of `run` reach. It has the workflows that are put into this mapping, by name."""
    certificate, ca = private_certificate(tmp_path)
    workflows: dict[str, Body] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.headers["authorization"].lower() == "bearer its-token"
            place, _, name = self.path.rpartition("/")
            assert place == "/apis/argoproj.io/v1alpha1/namespaces/kubeflow/workflows"
            body = json.dumps(workflows.get(name, {"kind": "Status", "code": 403})).encode()
            self.send_response(200 if name in workflows else 403)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("its-token")
    (account / "namespace").write_text("kubeflow")
    monkeypatch.setattr(workflow_module, "_ACCOUNT", account)
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_TOKEN_FILENAME", str(account / "token"))
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_CERT_FILENAME", str(ca))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_address[1]))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield workflows
        server.shutdown()


@pytest.mark.parametrize("case", TRUE)
def test_the_workflow_tells_the_truth_where_no_step_can_leave_a_mark(
    case: str, cluster: dict[str, Body], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere(run, tmp_path, monkeypatch)
    workflow = recorded(run, case)
    cluster[run.workflow] = workflow
    page = play(run, workflow, folder=tmp_path / "cache")
    assert page is not None
    assert page.startswith(f"# {TRUE[case][0]}\n")
    if case == "wrong-credentials":
        assert "SignatureDoesNotMatch" in page
        assert "pool, attempt 1" in page
    if case == "failed-cell":
        assert "toomany, selection" in page


def test_a_workflow_that_may_not_be_read_is_no_error(cluster: dict[str, Body], run: Run) -> None:
    assert ask(run.workflow) is None
    run.start()
    run.step("pool", InputError("no such file"))
    assert run.note("RUNNING").startswith("# FAILED\n")


@pytest.mark.parametrize(
    "status",
    [
        {"nodes": {"1": {"type": "Pod", "phase": "Failed"}}},
        {"nodes": {"1": {"name": None, "type": "Pod", "phase": "Failed", "message": 5}}},
        {"compressedNodes": "!"},
        {"compressedNodes": "H4sIAAAA"},
        None,
    ],
)
def test_a_workflow_of_an_unknown_form_is_no_error(cluster: dict[str, Body], run: Run, status: Body | None) -> None:
    cluster[run.workflow] = {"spec": {}, "status": status}
    assert ask(run.workflow) is None
    run.start()
    run.step("pool", InputError("no such file"))
    run.note("RUNNING")
    assert said(run.file) == ("FAILED", [], [("pool", 1)])


def test_a_run_that_was_stopped_by_hand_after_a_failed_attempt_is_stopped(cluster: dict[str, Body], run: Run) -> None:
    run.start()
    run.step("pool", InputError("no such file"))
    cluster[run.workflow] = {"spec": {"activeDeadlineSeconds": 0}, "status": {}}
    run.note("FAILED")
    assert said(run.file) == ("STOPPED", [], [("pool", 1)])


def test_a_pod_that_left_no_mark_is_named_beside_the_others_of_its_step() -> None:
    def pod(number: int, words: str) -> Body:
        name = f"w(0).root(0).exit-handler-1(0).for-loop-2(0).iteration-iterations({number}:{number})(0).rate(0)"
        return {"type": "Pod", "phase": "Failed", "name": f"{name}.executor(2)", "message": words}

    nodes = {str(number): pod(number, words) for number, words in enumerate(("OOMKilled (exit code 137)", ""))}
    found = read({"spec": {}, "status": {"nodes": nodes}})
    assert [(one.step, one.attempt) for one in found.failed] == [("rate", 3), ("rate", 3)]
    assert found.failed[0].words == "OOMKilled (exit code 137)"
    assert found.failed[1].words
    assert found.failed[0].what != found.failed[1].what


def test_the_words_of_the_last_attempt_count_and_those_of_a_step_that_then_succeeds_do_not(run: Run) -> None:
    run.start()
    run.step("embed", StorageError("the storage was away"), None)
    run.step("rate", StorageError("the first"), ModelError("the second", action="another model"))
    run.note("RUNNING")
    assert said(run.file) == ("FAILED", [], [("rate", 2)])
    (step,) = run.file["steps_failed"]
    assert (step["code"], step["what"]) == ("model", "ratings")
    assert "the second" in step["words"]
    assert "another model" in step["words"]
    assert "the first" not in step["words"]


def test_an_error_that_nobody_expected_leaves_words_too(run: Run) -> None:
    run.step("curate", KeyError("prior"))
    run.note("RUNNING")
    (step,) = run.file["steps_failed"]
    assert (step["step"], step["code"]) == ("curate", "unexpected")
    assert "prior" in step["words"]


def test_failed_cells_are_in_the_outcome_of_a_run_that_has_no_report(run: Run) -> None:
    run.start()
    (made,) = run.step("select", InputError("too many samples"), cell="large")
    assert failure_in(made.path) is not None
    run.step("report", InputError("no disk"))
    run.note("FAILED")
    assert said(run.file) == ("FAILED", [("large", "ratings")], [("report", 1)])
    assert run.file["report"] == ""


def test_a_finished_run_with_a_failed_cell_has_failed_and_has_a_report(run: Run) -> None:
    run.start()
    (failed,) = run.step("select", InputError("too many samples"), cell="large")
    (whole,) = run.step("select", None, cell="small")
    assert not run.require(whole, failed)
    run.note("FAILED")
    assert said(run.file) == ("FAILED", [("large", "ratings")], [])
    assert run.file["report"].endswith("/report.html")
    assert "too many samples" in run.file["cells_failed"][0]["reason"]


def test_no_secret_is_in_marks_outcome_and_page(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOME_API_KEY", "a-very-secret-key")
    from tamis.core.secrets import know

    know("a-very-secret-key")
    run.step("rate", InputError("the key a-very-secret-key is refused"))
    run.step("select", InputError("the key a-very-secret-key is refused"), cell="large")
    page = run.note("FAILED")
    files = [file for file in tmp_path.rglob("*.json") if file.is_file()]
    assert {"words", "cell"} <= {file.name.split("-")[0] for file in files}
    assert "a-very-secret-key" not in page + "".join(file.read_text() for file in files)
    assert "***" in page


def test_steps_find_the_folder_for_outcomes_where_it_is_compiled_into_the_package(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere(run, tmp_path, monkeypatch)
    monkeypatch.setenv(OUTCOMES, str(tmp_path / "outcomes"))
    run.step("pool", InputError("no such file"))
    run.outcomes = str(tmp_path / "outcomes")
    run.note("RUNNING")
    assert said(run.file) == ("FAILED", [], [("pool", 1)])


def test_a_folder_for_outcomes_that_refuses_is_an_error_at_once_and_never_a_success(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run.outcomes = str(tmp_path / "file" / "outcomes")
    with pytest.raises(SystemExit):
        run.start()
    assert not run.require()
    page = run.note("COMPLETE")
    assert page.startswith("# FAILED\n")
    assert str(tmp_path / "file") in page
    place = place_of(run.output("start-run", "started").uri)
    assert place is not None
    assert place.beside is not None
    assert not (Path(str(place.beside)) / "finished.json").exists()


def test_a_success_that_cannot_be_noted_fails_the_last_step(run: Run, tmp_path: Path) -> None:
    assert run.require()
    Path(run.outcomes, f"{run.id}.json").mkdir()
    with pytest.raises(SystemExit):
        run.note("COMPLETE")


@pytest.mark.parametrize("name", ["started.json", "finished.json"])
def test_a_mark_that_is_half_written_does_not_look_whole(name: str, run: Run) -> None:
    run.start()
    assert run.require()
    place = place_of(run.output("start-run", "started").uri, run.outcomes)
    assert place is not None
    for folder in place.folders:
        file = Path(str(folder)) / name
        file.write_bytes(file.read_bytes()[:-5])
    page = run.note("RUNNING")
    assert run.file["state"] == ("SUCCEEDED" if name == "started.json" else "STOPPED")
    assert run.file["unread"]
    assert name in page


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_step_that_is_killed_while_it_writes_leaves_a_whole_mark_or_none(run: Run) -> None:
    place = place_of(run.output("rate", "ratings").uri, run.outcomes)
    assert place is not None
    chance = random.Random(1)
    for number in range(10, 30):
        child = os.fork()
        if child == 0:
            try:
                while True:
                    leave(place, FINISHED, Finished(report=f"{number}" * 250_000))
            finally:
                os._exit(1)
        time.sleep(chance.uniform(0.0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        marks = read_marks(place)
        assert marks.unread == []
        assert marks.finished is None or len(marks.finished.report) == 500_000
    assert marks.finished is not None


def test_the_reader_of_the_folder_lists_runs_by_their_start(run: Run, tmp_path: Path) -> None:
    assert run.require()
    run.note("COMPLETE")
    other = Run(run.root, run.outcomes, run.patch, name="another")
    other.start()
    Path(run.outcomes, "data-selection-x.json").write_text('{"run": "data-selection-x", "state": "RUNNING"}')
    found = read_outcomes(run.outcomes)
    assert {outcome.run: outcome.state for outcome in found} == {run.id: "SUCCEEDED", other.id: "UNFINISHED"}
    shown = CliRunner().invoke(main, ["outcomes", run.outcomes])
    assert shown.exit_code == 0, shown.output
    assert f"another ({other.id})" in shown.output
    listed = CliRunner().invoke(main, ["outcomes", run.outcomes, "--json"])
    assert [outcome["run"] for outcome in json.loads(listed.stdout)] == [outcome.run for outcome in found]
    with pytest.raises(StorageError):
        read_outcomes(str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("uri", "run", "step"),
    [
        (
            "s3://mlpipeline/v2/artifacts/data-selection/60a8918d-bbec-4c8f-8f99-da4eb1e6dd0c/report/"
            "7eb1aadf-65f3-44c6-b292-76aa759cf39d/report",
            "60a8918d-bbec-4c8f-8f99-da4eb1e6dd0c",
            "report",
        ),
        (
            "s3://mlpipeline/v2/artifacts/experiment/60a8918d-bbec-4c8f-8f99-da4eb1e6dd0c/select/"
            "7eb1aadf-65f3-44c6-b292-76aa759cf39d/selections/best",
            "60a8918d-bbec-4c8f-8f99-da4eb1e6dd0c",
            "select",
        ),
        (
            "/data/.tamis/runs/data-selection-2026-12-01-03-04-05-123456/for-loop-2-1/rate/ratings",
            "data-selection-2026-12-01-03-04-05-123456",
            "rate",
        ),
        ("s3://bucket/somewhere/ratings", None, None),
    ],
)
def test_the_run_is_known_from_the_uri_of_an_output(uri: str, run: str | None, step: str | None) -> None:
    place = place_of(uri)
    assert (place.run, place.step) == (run, step) if place else run is None


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_folder_in_which_no_run_can_be_read_is_an_error(tmp_path: Path, options: list[str]) -> None:
    wrong = {"run": "a", "name": "b", "workflow": "c", "state": "SUCCEEDED", "report": None}
    (tmp_path / "a.json").write_text(json.dumps(wrong))
    (tmp_path / "package.yaml").write_text("")
    found = CliRunner().invoke(main, ["outcomes", str(tmp_path), *options])
    assert (found.exit_code, "code:    storage" in found.output, found.stdout) == (1, True, "")
    assert "a.json is left out: " in found.output
    assert "report: " in found.output, "the wrong field is named"
    file = CliRunner().invoke(main, ["outcomes", str(tmp_path / "a.json"), *options])
    assert (file.exit_code, "give the folder" in file.output) == (78, True)
    (tmp_path / "b.json").write_text(json.dumps(wrong | {"report": ""}))
    assert CliRunner().invoke(main, ["outcomes", str(tmp_path), *options]).exit_code == 0
