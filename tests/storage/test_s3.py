"""Artifacts and files in a real S3 server behave as they do in a local folder."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest

from tamis.core import storage
from tamis.core.artifacts import MANIFEST, Artifact, manifest_of
from tamis.core.errors import ArtifactError, ModelError, StorageError
from tamis.core.settings import StageSettings
from tamis.core.steps import Input, Step, run_step
from tests.artifacts import NoSettings
from tests.storage.conftest import reached
from tests.storage.unreliable import Unreliable


class Words(StageSettings):
    OUTPUT_REVISION: ClassVar[int] = 1
    text: str = "hello"


def write(step: Step[Words]) -> None:
    (step.out / "sub").mkdir()
    (step.out / "sub" / "words.txt").write_text(step.settings.text)
    step.rows = 1


def test_an_artifact_in_object_storage_is_read_back_whole(s3: str, tmp_path: Path) -> None:
    written = run_step("test", "pool", Words(), write, out=f"{s3}/pool")
    read = Artifact.open(f"{s3}/pool", "pool", cache=tmp_path)
    assert read.manifest == written
    assert read.path("sub/words.txt").read_text() == "hello"
    read.verify()


def test_the_content_hash_is_that_of_the_local_artifact(s3: str, tmp_path: Path) -> None:
    local = run_step("test", "pool", Words(), write, out=tmp_path / "pool")
    assert run_step("test", "pool", Words(), write, out=f"{s3}/pool").content_hash == local.content_hash


def test_a_step_takes_inputs_from_object_storage_and_is_done_once(s3: str) -> None:
    calls: list[int] = []

    def count(step: Step[Words]) -> None:
        calls.append(step.input("pool").path("sub/words.txt").read_text())
        write(step)

    run_step("test", "pool", Words(), write, out=f"{s3}/pool")
    for _ in range(2):
        inputs = {"pool": Input(f"{s3}/pool", "pool")}
        run_step("test", "ratings", Words(), count, out=f"{s3}/ratings", inputs=inputs)
    assert calls == ["hello"]


def test_without_a_manifest_it_is_unfinished(s3: str) -> None:
    run_step("test", "pool", Words(), write, out=f"{s3}/pool")
    (storage.locate(f"{s3}/pool") / MANIFEST).unlink()
    assert manifest_of(f"{s3}/pool") is None
    with pytest.raises(ArtifactError, match="is unfinished"):
        Artifact.open(f"{s3}/pool")


def test_bytes_that_changed_in_storage_are_noticed_when_read(s3: str, tmp_path: Path) -> None:
    run_step("test", "pool", Words(), write, out=f"{s3}/pool")
    storage.write_bytes(storage.locate(f"{s3}/pool/sub/words.txt"), b"jello")
    with pytest.raises(ArtifactError, match="checksum"):
        _ = Artifact.open(f"{s3}/pool", cache=tmp_path).folder


def test_a_fingerprint_follows_the_content(s3: str) -> None:
    place = storage.locate(f"{s3}/data.jsonl")
    storage.write_bytes(place, b"one")
    first = storage.fingerprint(f"{s3}/data.jsonl")
    storage.write_bytes(place, b"two")
    assert storage.fingerprint(f"{s3}/data.jsonl") != first


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", "SignatureDoesNotMatch|403|Forbidden"),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9", "EndpointConnectionError|ConnectionClosed|connect"),
    ],
)
def test_refusals_of_storage_are_clear_errors(
    s3: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match=words) as raised:
        run_step("test", "pool", Words(), write, out=f"{s3}/pool")
    assert "credentials" in str(raised.value)


def test_a_missing_bucket_is_a_clear_error(s3: str) -> None:
    with pytest.raises(StorageError, match=r"NoSuchBucket|does not exist|404"):
        run_step("test", "pool", Words(), write, out="s3://no-such-bucket/pool")


def test_a_server_out_of_order_is_an_error_and_not_an_absent_file(
    s3: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_bytes(storage.locate(f"{s3}/there/a.txt"), b"a")
    found = [storage.exists(storage.locate(f"{s3}/{name}")) for name in ("there/a.txt", "there", "there/b.txt", "ther")]
    assert found == [True, True, False, False]
    with Unreliable(int(s3_endpoint.rpartition(":")[2]), every=1) as proxy:
        reached(proxy.endpoint, monkeypatch)
        place, errors = storage.locate(f"{s3}/there/a.txt"), []
        for use, right in [(storage.exists, True), (storage.read_bytes, b"a")] * 3:
            try:
                assert use(place) == right  # half of an answer may say enough
            except StorageError as error:
                errors.append(str(error))
    assert errors
    assert all("credentials" in error for error in errors)


def test_unfinished_work_for_object_storage_outlives_its_process(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def fails(step: Step[Words]) -> None:
        (step.scratch / "paid").write_text("42")
        raise ModelError("stopped")

    def succeeds(step: Step[Words]) -> None:
        (step.out / "answer.txt").write_text((step.scratch / "paid").read_text())
        step.rows = 1

    with pytest.raises(ModelError):
        run_step("test", "pool", Words(), fails, out=f"{s3}/out")
    run_step("test", "pool", Words(), succeeds, out=f"{s3}/out")
    assert storage.read_bytes(storage.locate(f"{s3}/out") / "answer.txt") == b"42"
    assert not list(tmp_path.rglob("*.scratch"))


def test_a_delivery_that_was_killed_is_taken_up(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a home the finished artifact is sent again, though storage then holds newer files than the disk."""
    monkeypatch.setenv("TAMIS_HOME", str(tmp_path / "home"))
    calls: list[int] = []

    def body(step: Step[NoSettings]) -> None:
        calls.append(1)
        for number in range(3):
            (step.out / f"{number}.txt").write_text(str(number))

    send, sent = storage.upload, list[Path]()

    def killed(source: Path, target: storage.Location) -> None:
        if len(sent) == 2:
            raise KeyboardInterrupt
        time.sleep(0 if sent else 1.1)  # storage knows times to the second only
        sent.append(source)
        send(source, target)

    monkeypatch.setattr(storage, "upload", killed)
    with pytest.raises(KeyboardInterrupt):
        run_step("test", "pool", NoSettings(), body, out=f"{s3}/out")
    monkeypatch.setattr(storage, "upload", send)
    run_step("test", "pool", NoSettings(), body, out=f"{s3}/out")
    assert [Artifact.open(f"{s3}/out", cache=tmp_path / "cache").path(f"{n}.txt").read_text() for n in range(3)] == [
        *"012"
    ]
    assert len(calls) == 1


@pytest.mark.parametrize("remote", [False, True])
def test_of_many_that_create_a_file_one_does(remote: bool, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = storage.locate(request.getfixturevalue("s3") if remote else tmp_path)
    folder = folder / "claims"
    with ThreadPoolExecutor(8) as workers:
        for number in range(10):
            made = list(workers.map(lambda who: storage.create_bytes(folder / f"{number}", b"%d" % who), range(8)))  # noqa: B023
            assert sum(made) == 1
            assert storage.read_bytes(folder / f"{number}") == b"%d" % made.index(True)
    assert [place.name for place in storage.children(folder)] == [str(number) for number in range(10)]
