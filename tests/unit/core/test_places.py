"""Places that users write: homes, relative paths, and object storage whose client or network is not there."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from pydantic import Field

from tamis.core.errors import MissingExtraError, SettingsError, StorageError
from tamis.core.settings import Settings, load_yaml, parse
from tamis.core.storage import (
    ObjectPath,
    below,
    create_bytes,
    download,
    fingerprint,
    locate,
    places,
    read_bytes,
    remove,
    size_of,
    upload,
    write_bytes,
)
from tamis.core.storage.errors import ACTIONS
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


@pytest.mark.parametrize(
    ("uri", "named"),
    [
        ("gs://bucket/rows.jsonl", "storage.googleapis.com"),
        ("az://container/rows.jsonl", "nobody.blob.core.windows.net"),
        ("s3://bucket/rows.jsonl", "s3.nowhere-1.amazonaws.com"),
    ],
)
def test_a_server_that_has_no_address_is_told_at_once(uri: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    without = ("STORAGE_EMULATOR_HOST", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "all_proxy")
    without += ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AZURE_STORAGE_ENDPOINT", "AZURE_STORAGE_CONNECTION_STRING")
    for name in without:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "nobody")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "nowhere-1")
    with pytest.raises(StorageError) as error:
        read_bytes(locate(uri))
    assert named in error.value.problem
    assert error.value.action == ACTIONS[uri[:2]]


@pytest.mark.parametrize(
    ("uri", "gone", "extra"),
    [
        ("az://container/rows.jsonl", "obstore", "azure"),
        ("gs://bucket/rows.jsonl", "obstore", "gcs"),
        ("s3://bucket/rows.jsonl", "obstore", "s3"),
        ("s3://bucket/rows.jsonl", "botocore", "s3"),
    ],
)
def test_storage_without_its_package_names_it(uri: str, gone: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "find_spec", lambda name: None if name == gone else object())
    with pytest.raises(MissingExtraError) as error:
        locate(uri)
    assert (f"'{gone}'" in error.value.problem, f"tamis[{extra}]" in error.value.action) == (True, True)


@pytest.mark.parametrize("uri", ["s3://", "az:///x", "gs://b/../c", "s3://b/a\nb", "https://b/c", "abfs://b/c"])
def test_what_names_no_place_in_storage_is_refused(uri: str) -> None:
    with pytest.raises(StorageError) as error:
        locate(uri)
    assert error.value.allowed


@pytest.mark.parametrize(
    "uri", ["s3://b#a/x", "az://b?a/x", "gs://a b/x", "s3://b%20/x", "s3://ü/x", "s3://u:p@b/x", "s3:/b/x", "gs:x"]
)
def test_what_would_be_another_bucket_or_a_local_folder_is_refused(uri: str) -> None:
    with pytest.raises(StorageError) as error:
        locate(uri)
    assert (error.value.code, bool(error.value.allowed)) == ("storage", True)
    assert str(locate("az://$root/x")) == "az://$root/x"
    assert locate("./s3:/x") == Path("s3:/x")


def test_a_bucket_is_no_file(tmp_path: Path) -> None:
    bucket = ObjectPath("s3", "bucket")
    (tmp_path / "file").touch()
    for act in (
        lambda: read_bytes(bucket),
        lambda: size_of(bucket),
        lambda: write_bytes(bucket, b"x"),
        lambda: create_bytes(bucket, b"x"),
        lambda: remove(bucket),
        lambda: upload(tmp_path / "file", bucket),
        lambda: download(bucket, tmp_path / "copy"),
    ):
        with pytest.raises(StorageError) as error:
            act()
        assert error.value.allowed == "s3://bucket/folder/file"


def test_a_path_in_storage_is_like_one_on_a_disk() -> None:
    path = locate("s3://bucket//data/a/b.jsonl/")
    assert isinstance(path, ObjectPath)
    assert (str(path), path.name, str(path.parent)) == ("s3://bucket/data/a/b.jsonl", "b.jsonl", "s3://bucket/data/a")
    assert str(path.with_name("c") / "d/e") == "s3://bucket/data/a/c/d/e"
    assert below(locate("s3://bucket/data"), path) == "a/b.jsonl"
    assert below(locate("s3://bucket"), path) == "data/a/b.jsonl"
    names = ["a/b", "a-b/c", "a", "B", "a/b/c", "ä"]
    there = [str(path.key) for path in sorted(ObjectPath("s3", "b", name) for name in names)]
    assert there == [str(path) for path in sorted(map(Path, names))]
