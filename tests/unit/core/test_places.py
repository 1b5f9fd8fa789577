"""Places that users write: homes, relative paths, and object storage whose client or network is not there."""

from __future__ import annotations

import importlib
import socket
from pathlib import Path

import pytest
from pydantic import Field

from tamis.core.errors import MissingExtraError, SettingsError, StorageError
from tamis.core.settings import Settings, load_yaml, parse
from tamis.core.storage import fingerprint, locate, read_bytes
from tamis.core.tabular import local_copy
from tests.unit.pool.making import make, pairs, write_jsonl


class Places(Settings):
    """Settings with paths at several depths."""

    folder: Path
    files: list[str] = Field([])
    named: dict[str, str] = Field({})


def test_a_tilde_in_settings_is_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    given = {"folder": "~/runs", "files": ["~/a.txt", "b~/c"], "named": {"x": "~", "y": "~bob/x"}}
    assert parse(Places, given, where="test") == Places(
        folder=Path("/home/ann/runs"), files=["/home/ann/a.txt", "b~/c"], named={"x": "/home/ann", "y": "~bob/x"}
    )


def test_a_tilde_in_a_path_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_jsonl(tmp_path / "rows.jsonl", pairs(2))
    assert locate("~/rows.jsonl") == local_copy("~/rows.jsonl", tmp_path) == tmp_path / "rows.jsonl"
    assert make(tmp_path / "pool", {"path": "~/*.jsonl"})[0].rows == 2
    monkeypatch.chdir(tmp_path)
    make(Path("~/out"), {"path": "~/rows.jsonl"})
    assert (tmp_path / "out").is_dir()
    assert not (tmp_path / "~").exists()


def test_what_is_not_there_names_the_folder_that_it_was_looked_for_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for look in (
        lambda path: read_bytes(locate(path)),
        fingerprint,
        lambda path: local_copy(path, tmp_path),
        lambda path: make(tmp_path / "pool", {"path": path}),
        lambda path: load_yaml(Path(path)),
    ):
        for path, named in (("data/no.jsonl", True), (str(tmp_path / "no.jsonl"), False)):
            with pytest.raises((StorageError, SettingsError)) as error:
                look(path)
            assert (f"looked for in {tmp_path}" in error.value.problem) == named


@pytest.mark.parametrize("text", ["{path: ${data}/x}", "[${data}]", "[a, ${data}/*.jsonl]", "{a: {b: ${x}}}"])
def test_a_variable_without_quotes_is_told_how_to_quote_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.yaml").write_text(f"a: {text}\n")
    with pytest.raises(SettingsError) as error:
        load_yaml(tmp_path / "settings.yaml")
    assert '"${name}/file"' in error.value.action
    (tmp_path / "settings.yaml").write_text("a: ${data}/x\n")
    assert load_yaml(tmp_path / "settings.yaml") == {"a": "${data}/x"}


def test_googles_storage_without_network_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    for name in ("STORAGE_EMULATOR_HOST", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StorageError) as error:
        locate("gs://bucket/rows.jsonl")
    assert "GOOGLE_APPLICATION_CREDENTIALS" in error.value.action


def test_storage_without_its_package_names_it() -> None:
    pytest.importorskip("cloudpathlib", reason="needs the extra 's3'")
    try:
        importlib.import_module("azure.storage.blob")
    except ImportError:
        pass
    else:
        pytest.skip("the package is installed")
    with pytest.raises(MissingExtraError) as error:
        locate("az://container/rows.jsonl")
    assert ("azure-storage-blob" in error.value.problem, "tamis[azure]" in error.value.action) == (True, True)
