"""The pool reads its sources from real object storage and writes itself there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tamis.core import storage
from tamis.core.artifacts import Artifact
from tamis.core.errors import ArtifactError, InputError, StorageError
from tamis.pool.stage import run
from tests.unit.pool.making import Row, make, pairs, settings_of, turns, write_jsonl, write_parquet


def put(url: str, file: Path, write: Callable[[Path, list[Row]], Path], rows: list[Row]) -> str:
    storage.write_bytes(storage.locate(url), write(file, rows).read_bytes())
    return url


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_file_in_object_storage_is_a_source(remote: str, tmp_path: Path, name: str) -> None:
    url = put(f"{remote}/{name}", tmp_path / name, write_jsonl, pairs(20))
    manifest, rows = make(tmp_path / "pool", {"path": url})
    assert [turns(row)[0][1] for row in rows] == [f"Question {i}?" for i in range(20)]
    local, _ = make(tmp_path / "local", {"path": str(tmp_path / name)})
    assert local.content_hash == manifest.content_hash


def test_a_folder_in_object_storage_gives_its_files_by_name(remote: str, tmp_path: Path) -> None:
    put(f"{remote}/data/b/x.parquet", tmp_path / "x.parquet", write_parquet, pairs(2, 2))
    put(f"{remote}/data/a.jsonl", tmp_path / "a.jsonl", write_jsonl, pairs(2))
    _, rows = make(tmp_path / "pool", {"path": f"{remote}/data"})
    assert [row["origin"] for row in rows] == [0, 1, 2, 3]
    assert [turns(row)[0][1] for row in rows] == [f"Question {i}?" for i in range(4)]


def test_a_finished_pool_in_object_storage_is_a_source(remote: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", pairs(5))
    run(settings_of({"path": str(tmp_path / "a.jsonl")}), out=f"{remote}/pool")
    _, rows = make(tmp_path / "again", {"path": f"{remote}/pool"})
    assert [turns(row)[0][1] for row in rows] == [f"Question {i}?" for i in range(5)]


def test_a_changed_object_is_noticed(remote: str, tmp_path: Path) -> None:
    url = put(f"{remote}/a.jsonl", tmp_path / "a.jsonl", write_jsonl, pairs(2))
    make(tmp_path / "pool", {"path": url})
    put(url, tmp_path / "a.jsonl", write_jsonl, pairs(3))
    with pytest.raises(ArtifactError, match=f"{tmp_path}/pool"):
        make(tmp_path / "pool", {"path": url})


def test_what_is_not_there_is_a_clear_error(remote: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=f"{remote}/nowhere"):
        make(tmp_path / "pool", {"path": f"{remote}/nowhere.jsonl"})
    with pytest.raises(StorageError, match=r"no-such-bucket.*(NoSuchBucket|ContainerNotFound)"):
        make(tmp_path / "pool", {"path": f"{remote[:5]}no-such-bucket/a.jsonl"})


def test_the_rejects_of_a_failed_pool_lie_beside_it(remote: str, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [*pairs(2), {"prompt": "", "completion": ""}])
    with pytest.raises(InputError, match="1 of 3 rows") as error:
        run(settings_of({"path": str(path)}), out=f"{remote}/pool")
    beside = f"{remote}/pool.rejects.parquet"
    assert beside in error.value.action
    assert storage.exists(storage.locate(beside))
    assert not storage.exists(storage.locate(f"{remote}/pool"))
    run(settings_of({"path": str(path)}, max_reject_share=0.5), out=f"{remote}/pool")
    assert Artifact.open(f"{remote}/pool", "pool").manifest.rows == 2
