"""`tamis probe` on local folders; `tests/storage/test_cluster.py` has it on real servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session
from botocore.stub import Stubber
from click.testing import CliRunner

from tamis.cli import main
from tamis.cluster import probe as module
from tamis.core.errors import SettingsError, StorageError
from tamis.core.storage import Location


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["probe", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a file is where a folder should be"):
        module.probe(str(tmp_path / "file"))


def test_storage_that_gives_back_something_else_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(_: Location) -> bytes:
        return b"other"

    monkeypatch.setattr(module, "read_bytes", other)
    with pytest.raises(StorageError, match="does not return what was written"):
        module.probe(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_only_s3_has_buckets_to_make(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="only S3 buckets"):
        module.probe(str(tmp_path), create_bucket=True)


@pytest.mark.parametrize(
    ("region", "said"),
    [
        ("us-east-1", {}),
        ("eu-central-1", {"CreateBucketConfiguration": {"LocationConstraint": "eu-central-1"}}),
    ],
)
def test_a_bucket_is_made_in_the_region(region: str, said: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"aws_access_key_id": "id", "aws_secret_access_key": "secret"}
    client = Session().create_client("s3", region_name=region, **keys)
    monkeypatch.setattr(Session, "create_client", lambda *_: client)
    with Stubber(client) as server:
        server.add_response("create_bucket", {}, {"Bucket": "bucket"} | said)
        module._create_bucket("s3://bucket/runs")
        server.assert_no_pending_responses()
