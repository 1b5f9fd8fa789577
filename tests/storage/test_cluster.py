"""What pods do with object storage, on real servers."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from click.testing import CliRunner

from tamis.cli import main
from tamis.cluster.fetching import FetchSettings, fetch
from tamis.cluster.probe import probe
from tamis.cluster.waiting import wait_for
from tamis.core.errors import StorageError
from tamis.core.settings import StageSettings, parse
from tamis.core.steps import Step, run_step
from tamis.core.storage import files_below, locate, write_bytes
from tamis.core.storage.errors import CURES
from tests.storage.seaweed import Seaweed


class Words(StageSettings):
    OUTPUT_REVISION: ClassVar[int] = 1
    text: str = "hello"


def write(step: Step[Words]) -> None:
    (step.out / "words.txt").write_text(step.settings.text)


def fetched(uri: str, folder: Path) -> None:
    source = {"kind": "storage", "uri": uri, "folder": str(folder)}
    fetch(parse(FetchSettings, {"models": [source]}, where="models.yaml"))


def test_the_wait_ends_with_the_artifact(remote: str) -> None:
    run_step("test", "pool", Words(), write, out=f"{remote}/pool")
    wait_for([f"{remote}/pool"], timeout=10, every=0.1)


def test_the_wait_ends_with_the_reason_when_credentials_are_wrong(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")
    result = CliRunner().invoke(main, ["wait", f"{remote}/pool", "--timeout", "60"])
    assert result.exit_code == 78
    assert CURES[remote[:2]] in result.output


def test_a_probe_leaves_nothing_behind(remote: str) -> None:
    probe(remote)
    assert files_below(locate(remote)) == []


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
@pytest.mark.usefixtures("s3")
def test_a_probe_makes_the_bucket_once(s3_server: Seaweed, region: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "8")  # the server may be busy with a bucket that it has just made
    for _ in range(2):
        probe(f"s3://tamis-made-by-probe-{region}/x", create_bucket=True)
    made = [bucket["Name"] for bucket in s3_server.client().list_buckets()["Buckets"]]
    assert made.count(f"tamis-made-by-probe-{region}") == 1


def test_a_probe_of_a_missing_bucket_is_an_error(remote: str) -> None:
    with pytest.raises(StorageError, match=r"NoSuchBucket|ContainerNotFound"):
        probe(f"{remote[:5]}tamis-no-such-bucket/x")


def test_a_model_is_copied_once_and_a_torn_file_again(
    remote: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_bytes(locate(f"{remote}/model/config.json"), b"{}")
    write_bytes(locate(f"{remote}/model/sub/weights.bin"), b"weights")
    caplog.set_level("INFO")
    fetched(f"{remote}/model", tmp_path / "model")
    assert (tmp_path / "model/config.json").read_bytes() == b"{}"
    assert (tmp_path / "model/sub/weights.bin").read_bytes() == b"weights"
    (tmp_path / "model/sub/weights.bin").write_bytes(b"wei")
    fetched(f"{remote}/model", tmp_path / "model")
    assert (tmp_path / "model/sub/weights.bin").read_bytes() == b"weights"
    assert "2 files" in caplog.messages[-2]
    assert "2 of them fetched now" in caplog.messages[-2]
    assert "1 of them fetched now" in caplog.messages[-1]


def test_an_empty_prefix_is_an_error(remote: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no files below"):
        fetched(f"{remote}/nothing", tmp_path / "model")
