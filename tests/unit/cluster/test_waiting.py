"""`tamis wait`, by which Jobs without a pipeline engine come in order."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from tamis.cli import main
from tamis.cluster.waiting import wait_for
from tamis.core.errors import ArtifactError
from tests.artifacts import conversation, make_pool

SAMPLES = [conversation("Name a metal.", "Copper.")]


def test_it_returns_at_once_when_everything_is_finished(small_pool: Path) -> None:
    begun = time.monotonic()
    wait_for([str(small_pool)], timeout=60, every=60)
    assert time.monotonic() - begun < 5


def test_it_returns_when_the_last_artifact_is_finished(small_pool: Path, tmp_path: Path) -> None:
    late = tmp_path / "late"
    maker = threading.Timer(0.3, lambda: make_pool(late, SAMPLES))
    maker.start()
    wait_for([str(small_pool), str(late)], timeout=60, every=0.05)
    maker.join()
    assert (late / "manifest.json").is_file()


def test_a_folder_without_a_manifest_is_still_waited_for(tmp_path: Path) -> None:
    unfinished = tmp_path / "pool"
    unfinished.mkdir()
    with pytest.raises(ArtifactError, match=r"still unfinished after 0 s: .*/pool"):
        wait_for([str(unfinished)], timeout=0.2, every=0.05)


def test_the_end_of_patience_names_only_what_is_missing(small_pool: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as refused:
        wait_for([str(small_pool), str(tmp_path / "never")], timeout=0.1, every=0.05)
    assert "never" in refused.value.problem
    assert str(small_pool) not in refused.value.problem


def test_a_manifest_that_cannot_be_read_ends_the_wait(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ArtifactError, match="cannot be read"):
        wait_for([str(tmp_path)], timeout=60, every=0.05)


def test_the_command_ends_with_an_error_code_and_the_reason_last(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["wait", str(tmp_path / "never"), "--timeout", "0.1", "--every", "0.1"])
    assert result.exit_code == 1
    assert "error: still unfinished" in result.output


def test_the_command_wants_something_to_wait_for() -> None:
    assert CliRunner().invoke(main, ["wait"]).exit_code == 2
