"""`tamis fetch` with a Hub that is a local HTTP server, and its settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from tamis.cli import main
from tamis.cluster.fetching import FetchSettings
from tamis.core.errors import SettingsError
from tamis.core.settings import parse

COMMIT, CONTENT = "a" * 40, b'{"hidden_size": 8}'


class _Hub(BaseHTTPRequestHandler):
    """The few answers of a Hub that has one repository, tamis/tiny, with two files."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if "/resolve/" in self.path:
            self._answer(CONTENT, {"X-Repo-Commit": COMMIT, "ETag": f'"{COMMIT}"'})
        elif "/tree/" in self.path:
            files = ("config.json", "model.bin")
            entries = [{"type": "file", "oid": COMMIT, "size": len(CONTENT), "path": name} for name in files]
            self._answer(json.dumps(entries).encode(), {})
        elif "/models/tamis/tiny/revision/" in self.path:
            self._answer(json.dumps({"id": "tamis/tiny", "sha": COMMIT}).encode(), {})
        else:  # as the Hub answers
            self._answer(b"{}", {"X-Error-Code": "RepoNotFound"}, 404)

    do_HEAD = do_GET

    def _answer(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    """Address of a running Hub."""
    _Hub.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def fetched(file: Path, hub: str) -> subprocess.CompletedProcess[str]:
    environment = {"HF_HOME": str(file.parent / "hf"), "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub}
    environment["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
    command = [sys.executable, "-m", "tamis", "fetch", str(file)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_a_repository_lands_in_the_hubs_own_cache_with_the_files_wanted(tmp_path: Path, hub: str) -> None:
    file = tmp_path / "models.yaml"
    file.write_text("models: [{kind: hub, repo: tamis/tiny, revision: v1, files: ['*.json']}]")
    ended = fetched(file, hub)
    assert ended.returncode == 0, ended.stderr
    snapshot = tmp_path / "hf/hub/models--tamis--tiny/snapshots" / COMMIT
    assert [path.name for path in snapshot.iterdir()] == ["config.json"]
    assert (snapshot / "config.json").read_bytes() == CONTENT
    assert any("/revision/v1" in path for path in _Hub.asked)


def test_a_repository_that_the_hub_does_not_have_is_an_error(tmp_path: Path, hub: str) -> None:
    file = tmp_path / "models.yaml"
    file.write_text("models: [{kind: hub, repo: tamis/none}]")
    ended = fetched(file, hub)
    assert ended.returncode == 78
    assert "cannot download tamis/none@main" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"kind": "hub"}, "repo: missing"),
        ({"kind": "hub", "repo": ""}, "at least 1 character"),
        ({"kind": "hub", "repo": "a/b", "revison": "main"}, "did you mean 'revision'"),
        ({"kind": "hub", "repo": "a/b", "type": "space"}, "'model' or 'dataset'"),
        ({"kind": "storage", "uri": "s3://b/m"}, "folder: missing"),
        ({"kind": "ftp"}, "allowed: hub, storage"),
    ],
)
def test_a_wrong_entry_is_refused_in_words(model: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        parse(FetchSettings, {"models": [model]}, where="models.yaml")


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(SettingsError, match="at least 1 item"):
        parse(FetchSettings, {"models": []}, where="models.yaml")


def test_a_folder_of_this_machine_is_no_object_storage(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(f"models: [{{kind: storage, uri: {tmp_path}, folder: {tmp_path}/there}}]")
    result = CliRunner().invoke(main, ["fetch", str(file)])
    assert result.exit_code == 78
    assert "is not in object storage" in result.output


def test_a_hub_that_does_not_answer_is_an_error_without_a_traceback(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text("models: [{kind: hub, repo: tamis/none, revision: main}]")
    ended = fetched(file, "http://127.0.0.1:9")
    assert ended.returncode == 1, ended.stderr
    assert "cannot download tamis/none@main" in ended.stderr
    assert "Traceback" not in ended.stderr
