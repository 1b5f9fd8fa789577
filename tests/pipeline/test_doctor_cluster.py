"""`tamis doctor --cluster`: what it says of a Kubeflow server, from a real server's recorded answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tamis.cli import main
from tamis_pipelines.checks.check import Check
from tamis_pipelines.doctor import examine_cluster
from tamis_pipelines.server import Server
from tamis_pipelines.settings import load_run
from tests.conftest import ROOT
from tests.pipeline.recorded import Case, RecordedServer
from tests.storage.seaweed import free_port


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Case:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    return Case("cached")


@pytest.fixture
def server(case: Case) -> Iterator[RecordedServer]:
    running = RecordedServer(case)
    yield running
    running.close()


def checks(server: RecordedServer, *overrides: str) -> dict[str, Check]:
    found = examine_cluster(load_run(ROOT / "examples/cluster.yaml", overrides), Server(server.url))
    return {check.what: check for check in found}


def test_a_server_as_it_was_recorded_passes(server: RecordedServer) -> None:
    found = checks(server)
    assert (found["kubeflow"].level, "2.17.0" in found["kubeflow"].seen) == ("ok", True)
    assert "database" in found["kubeflow: pipelines"].seen
    assert found["kubeflow: runs"].level == "ok"
    assert found["kubeflow.objects"].level == "note", "no kubeconfig, so claims are not checked"
    result = CliRunner().invoke(
        main, ["doctor", str(ROOT / "examples/cluster.yaml"), "--cluster", "--host", server.url], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output


def test_the_size_of_the_run_s_workflow_is_computed(server: RecordedServer) -> None:
    found = checks(server)["kubeflow: workflow"]
    assert (found.level, "pods" in found.seen) == ("ok", True)
    many = f"experiment={{seeds: {list(range(30))}}}"
    found = checks(server, many, "kubeflow.compiled.cells_per_pod=1")["kubeflow: workflow"]
    assert (found.level, found.code) == ("failed", "settings")


@pytest.mark.parametrize(
    "wrong",
    [
        "pool.sources=[{name: mine, path: pool.jsonl}]",
        "kubeflow.compiled.finished=/tmp/finished",
        "raters=[{name: llama, backend: {kind: openai, model: m}}]",
        "raters=[{name: llama, backend: {kind: openai, model: m, base_url: https://gateway.example/sk-4f0a9b3c7d/v1}}]",
    ],
    ids=["file", "finished", "store", "secret"],
)
def test_what_submit_refuses_fails_here_with_the_same_code(server: RecordedServer, wrong: str) -> None:
    arguments = [str(ROOT / "examples/cluster.yaml"), "--set", wrong, "--host", server.url]
    arguments += ["--set", "kubeflow.compiled.work_volume=false"]
    submitted = CliRunner().invoke(main, ["submit", *arguments, "--dry-run"], catch_exceptions=False)
    assert (submitted.exit_code, "code:    settings" in submitted.output) == (78, True)
    checked = CliRunner().invoke(main, ["doctor", *arguments, "--cluster"], catch_exceptions=False)
    assert (checked.exit_code, "FAIL  settings: " in checked.output) == (1, True), checked.output


def test_places_that_cannot_be_tested_from_here_are_one_note(
    server: RecordedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://no-such-host.invalid")
    places = [f"kubeflow.compiled.{name}=s3://tamis/{name}" for name in ("finished", "outcomes")]
    found = checks(server, *places)["storage"]
    assert found.level == "note"
    assert found.seen.count("no-such-host.invalid") == 1
    for name in ("finished", "outcomes"):
        assert f"kubeflow.compiled.{name} (s3://tamis/{name})" in found.seen


def test_a_server_that_does_not_return_the_workflow_is_noted(case: Case, server: RecordedServer) -> None:
    case.v1beta1 = 404
    assert checks(server)["kubeflow: runs"].level == "note"


def test_a_server_before_2_17_gets_no_identity(server: RecordedServer) -> None:
    server.health["tag_name"] = "2.5.0"
    found = checks(server)["kubeflow"]
    assert (found.level, "identity=false" in found.action) == ("note", True)
    assert checks(server, "kubeflow.compiled.identity=false")["kubeflow"].level == "ok"
    server.health["tag_name"] = "unknown"
    assert checks(server)["kubeflow"].level == "note"


def test_a_server_that_is_away_fails_the_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load((ROOT / "examples/cluster.yaml").read_text())))
    arguments = ["doctor", str(file), "--cluster", "--host", f"http://127.0.0.1:{free_port()}"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert (result.exit_code, "FAIL  kubeflow: " in result.output) == (1, True)
