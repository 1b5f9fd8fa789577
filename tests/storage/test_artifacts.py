"""Artifacts and files in real object storage behave as they do in a local folder."""

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
from tamis.core.storage.errors import ACTIONS
from tests.artifacts import NoSettings
from tests.storage.conftest import Server, reach
from tests.storage.seaweed import Seaweed
from tests.storage.unreliable import Unreliable


class Words(StageSettings):
    OUTPUT_REVISION: ClassVar[int] = 1
    text: str = "hello"


def write(step: Step[Words]) -> None:
    (step.out / "sub").mkdir()
    (step.out / "sub" / "words.txt").write_text(step.settings.text)
    step.rows = 1


def test_an_artifact_in_object_storage_is_read_back_whole(remote: str, tmp_path: Path) -> None:
    written = run_step("test", "pool", Words(), write, out=f"{remote}/pool")
    read = Artifact.open(f"{remote}/pool", "pool", cache=tmp_path)
    assert read.manifest == written
    assert read.path("sub/words.txt").read_text() == "hello"
    read.verify()


def test_the_content_hash_is_that_of_the_local_artifact(remote: str, tmp_path: Path) -> None:
    local = run_step("test", "pool", Words(), write, out=tmp_path / "pool")
    assert run_step("test", "pool", Words(), write, out=f"{remote}/pool").content_hash == local.content_hash


def test_a_step_takes_inputs_from_object_storage_and_is_done_once(remote: str) -> None:
    calls: list[int] = []

    def count(step: Step[Words]) -> None:
        calls.append(step.input("pool").path("sub/words.txt").read_text())
        write(step)

    run_step("test", "pool", Words(), write, out=f"{remote}/pool")
    for _ in range(2):
        inputs = {"pool": Input(f"{remote}/pool", "pool")}
        run_step("test", "ratings", Words(), count, out=f"{remote}/ratings", inputs=inputs)
    assert calls == ["hello"]


def test_without_a_manifest_it_is_unfinished(remote: str) -> None:
    run_step("test", "pool", Words(), write, out=f"{remote}/pool")
    storage.remove(storage.locate(f"{remote}/pool") / MANIFEST)
    assert manifest_of(f"{remote}/pool") is None
    with pytest.raises(ArtifactError, match="is unfinished"):
        Artifact.open(f"{remote}/pool")


def test_bytes_that_changed_in_storage_are_noticed_when_read(remote: str, tmp_path: Path) -> None:
    run_step("test", "pool", Words(), write, out=f"{remote}/pool")
    storage.write_bytes(storage.locate(f"{remote}/pool/sub/words.txt"), b"jello")
    with pytest.raises(ArtifactError, match="checksum"):
        _ = Artifact.open(f"{remote}/pool", cache=tmp_path).folder


def test_a_fingerprint_follows_the_content(remote: str) -> None:
    place = storage.locate(f"{remote}/data.jsonl")
    storage.write_bytes(place, b"one")
    first = storage.fingerprint(f"{remote}/data.jsonl")
    storage.write_bytes(place, b"two")
    assert storage.fingerprint(f"{remote}/data.jsonl") != first


@pytest.mark.parametrize(
    ("fault", "words"),
    [("secret", "SignatureDoesNotMatch|AuthorizationFailure|403 Forbidden"), ("endpoint", "Connection refused")],
)
def test_refusals_of_storage_are_clear_errors(
    server: Server, remote: str, monkeypatch: pytest.MonkeyPatch, fault: str, words: str
) -> None:
    if fault == "secret":
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")
    else:
        reach(server, monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=words) as raised:
        run_step("test", "pool", Words(), write, out=f"{remote}/pool")
    assert (raised.value.code, raised.value.action) == ("storage", ACTIONS[remote[:2]])


def test_a_missing_bucket_is_an_error_and_not_an_absent_file(remote: str) -> None:
    place = storage.locate(f"{remote[:5]}no-such-bucket/pool")
    for look in (storage.exists, storage.read_bytes, storage.children, storage.files_below):
        with pytest.raises(StorageError) as raised:
            look(place)
        assert "NoSuchBucket" in raised.value.problem or "ContainerNotFound" in raised.value.problem
    with pytest.raises(StorageError):
        run_step("test", "pool", Words(), write, out=str(place))


def test_to_be_denied_is_an_error_and_not_an_absent_file(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_bytes(storage.locate(f"{remote}/there/a.txt"), b"a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")
    for name in ("there/a.txt", "there", "there/b.txt"):
        for look in (storage.exists, storage.read_bytes, storage.children, storage.files_below, storage.fingerprint):
            place = storage.locate(f"{remote}/{name}")
            with pytest.raises(StorageError) as raised:
                look(str(place) if look is storage.fingerprint else place)
            assert raised.value.action == ACTIONS[remote[:2]]


def test_listing_gives_folders_and_files_in_order(remote: str) -> None:
    names = ["a-b/x", "a/b/c", "a/d", "ä ü#%20?.txt", "z"]
    for name in names:
        storage.write_bytes(storage.locate(f"{remote}/{name}"), name.encode())
    folder = storage.locate(remote)
    assert [storage.below(folder, file) for file in storage.files_below(folder)] == [
        "a/b/c", "a/d", "a-b/x", "z", "ä ü#%20?.txt",
    ]  # fmt: skip
    assert [place.name for place in storage.children(folder)] == storage.names_in(folder) == [
        "a", "a-b", "z", "ä ü#%20?.txt",
    ]  # fmt: skip
    assert {storage.read_bytes(file).decode() for file in storage.files_below(folder)} == set(names)
    assert storage.files_below(folder / "z") == [folder / "z"]
    assert all(storage.exists(folder / name) for name in ("a", "a/b", "a/d"))
    assert not any(storage.exists(folder / name) for name in ("b", "a/dd"))
    assert (storage.names_in(folder / "none"), storage.files_below(folder / "none")) == ([], [])


def test_an_empty_object_that_stands_for_a_folder_is_no_file(s3: str, s3_server: Seaweed) -> None:
    prefix = s3.removeprefix(f"{s3_server.bucket}/")
    for key in ("f/", "f/sub/", "f/sub/file", "f/empty/", "f/none"):
        s3_server.client().put_object(Bucket="tamis", Key=f"{prefix}/{key}", Body=b"x" * key.endswith("file"))
    folder = storage.locate(f"{s3}/f")
    assert [storage.below(folder, file) for file in storage.files_below(folder)] == ["none", "sub/file"]
    assert storage.names_in(folder) == ["empty", "none", "sub"]


def test_files_are_removed_and_those_that_are_gone_are_left(remote: str) -> None:
    folder = storage.locate(remote)
    for name in ("a", "b", "c"):
        storage.write_bytes(folder / name, b"x")
    storage.remove_all(folder, ["none", "a", "gone", "b"])
    storage.remove(folder / "none")
    assert storage.names_in(folder) == ["c"]


def test_a_server_out_of_order_is_an_error_and_not_an_absent_file(
    remote: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_bytes(storage.locate(f"{remote}/there/a.txt"), b"a")
    names = ("there/a.txt", "there", "there/b.txt", "ther")
    found = [storage.exists(storage.locate(f"{remote}/{name}")) for name in names]
    assert found == [True, True, False, False]
    with Unreliable(server.port, every=1) as proxy:
        reach(server, monkeypatch, proxy.endpoint)
        place, errors = storage.locate(f"{remote}/there/a.txt"), []
        for use, right in [(storage.exists, True), (storage.read_bytes, b"a")] * 3:
            try:
                assert use(place) == right  # half of an answer may say enough
            except StorageError as error:
                errors.append(str(error))
    assert errors
    assert all("credentials" in error for error in errors)


def test_unfinished_work_for_object_storage_outlives_its_process(
    remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def fails(step: Step[Words]) -> None:
        (step.scratch / "paid").write_text("42")
        raise ModelError("stopped")

    def succeeds(step: Step[Words]) -> None:
        (step.out / "answer.txt").write_text((step.scratch / "paid").read_text())
        step.rows = 1

    with pytest.raises(ModelError):
        run_step("test", "pool", Words(), fails, out=f"{remote}/out")
    run_step("test", "pool", Words(), succeeds, out=f"{remote}/out")
    assert storage.read_bytes(storage.locate(f"{remote}/out") / "answer.txt") == b"42"
    assert not list(tmp_path.rglob("*.scratch"))


def test_a_delivery_that_was_killed_is_taken_up(remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        run_step("test", "pool", NoSettings(), body, out=f"{remote}/out")
    monkeypatch.setattr(storage, "upload", send)
    run_step("test", "pool", NoSettings(), body, out=f"{remote}/out")
    read = Artifact.open(f"{remote}/out", cache=tmp_path / "cache")
    assert [read.path(f"{number}.txt").read_text() for number in range(3)] == [*"012"]
    assert len(calls) == 1


@pytest.mark.parametrize("where", ["", "s3", "azure"])
def test_of_many_that_create_a_file_one_does(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = storage.locate(request.getfixturevalue(where) if where else tmp_path)
    folder = folder / "claims"
    with ThreadPoolExecutor(8) as workers:
        for number in range(4):
            made = list(workers.map(lambda who: storage.create_bytes(folder / f"{number}", b"%d" % who), range(8)))  # noqa: B023
            assert sum(made) == 1
            assert storage.read_bytes(folder / f"{number}") == b"%d" % made.index(True)
    assert [place.name for place in storage.children(folder)] == [str(number) for number in range(4)]
