"""Data sets through the `datasets` library: local folders for real, and the hub when it cannot be reached."""

from __future__ import annotations

import errno
import warnings
from pathlib import Path
from typing import Any

import pytest

from tamis.core.errors import InputError, SettingsError
from tamis.core.hub import Wanted, load_split
from tamis.pool import hub
from tamis.pool.settings import Source
from tests.unit.pool.making import make, pairs, turns, write_csv, write_jsonl

datasets = pytest.importorskip("datasets", reason="needs the extra 'hub'")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def folder_with_splits(folder: Path) -> Path:
    folder.mkdir()
    write_jsonl(folder / "train.jsonl", [row | {"topic": "t"} for row in pairs(300)])
    write_jsonl(folder / "test.jsonl", pairs(2, 1000))
    return folder


def test_a_folder_is_loaded_as_a_data_set(tmp_path: Path) -> None:
    folder = folder_with_splits(tmp_path / "data")
    manifest, rows = make(tmp_path / "pool", {"dataset": str(folder), "keep": ["topic"]})
    assert [turns(row)[0][1] for row in rows] == [f"Question {i}?" for i in range(300)]
    assert rows[299]["origin"] == 299
    assert rows[0]["metadata"] == '{"topic": "t"}'
    facts = manifest.facts["sources"]["s0"]
    assert (facts["dataset"], facts["read"]) == (str(folder), 300)
    assert facts["revision"].startswith("sha256:")


def test_a_split_can_be_chosen_and_sliced(tmp_path: Path) -> None:
    folder = folder_with_splits(tmp_path / "data")
    _, rows = make(tmp_path / "pool", {"dataset": str(folder), "split": "test"})
    assert [turns(row)[0][1] for row in rows] == ["Question 1000?", "Question 1001?"]
    _, rows = make(tmp_path / "slice", {"dataset": str(folder), "split": "train[10:12]"})
    assert [turns(row)[0][1] for row in rows] == ["Question 10?", "Question 11?"]


def test_what_save_to_disk_wrote_is_loaded(tmp_path: Path) -> None:
    messages = [[{"role": "user", "content": f"Q{i}"}, {"role": "assistant", "content": "A"}] for i in range(3)]
    datasets.Dataset.from_dict({"messages": messages}).save_to_disk(tmp_path / "saved")
    assert make(tmp_path / "pool", {"dataset": str(tmp_path / "saved")})[0].rows == 3


def test_a_changed_folder_is_another_pool(tmp_path: Path) -> None:
    folder = folder_with_splits(tmp_path / "data")
    first, _ = make(tmp_path / "one", {"dataset": str(folder)})
    write_jsonl(folder / "train.jsonl", pairs(4))
    second, _ = make(tmp_path / "two", {"dataset": str(folder)})
    assert (second.rows, second.key == first.key) == (4, False)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"split": "validation"}, r'Unknown split "validation". Should be one of \['),
        ({"config": "de"}, r"BuilderConfig 'de' not found. Available: \['default'\]"),
    ],
)
def test_what_a_data_set_has_not_is_named_with_what_it_has(tmp_path: Path, source: dict[str, Any], said: str) -> None:
    folder = folder_with_splits(tmp_path / "data")
    with pytest.raises(InputError, match=said):
        make(tmp_path / "pool", {"dataset": str(folder)} | source)


def test_a_missing_field_of_a_data_set_names_its_columns(tmp_path: Path) -> None:
    folder = folder_with_splits(tmp_path / "data")
    with pytest.raises(InputError, match="'messages'") as error:
        make(tmp_path / "pool", {"dataset": str(folder), "schema": "messages"})
    assert "'prompt', 'completion'" in error.value.allowed


def test_a_broken_file_of_a_data_set_points_to_reading_by_path(tmp_path: Path) -> None:
    folder = folder_with_splits(tmp_path / "data")
    (folder / "train.jsonl").write_text('{"prompt": "Q", "completion"')
    with pytest.raises(InputError, match=str(folder)) as error:
        make(tmp_path / "pool", {"dataset": str(folder)})
    assert "`path`" in error.value.action


def test_a_loading_script_is_not_run_and_points_to_the_hubs_conversion(tmp_path: Path) -> None:
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "script.py").write_text("raise SystemExit('run')")
    with pytest.raises(InputError, match="scripts are no longer supported") as error:
        make(tmp_path / "pool", {"dataset": str(tmp_path / "script")})
    assert "refs/convert/parquet" in error.value.action


def test_a_folder_without_data_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="doesn't contain any data files"):
        make(tmp_path / "pool", {"dataset": str(tmp_path / "empty")})


@pytest.mark.parametrize("source", [{"dataset": "tatsu-lab/alpaca"}, {"recipe": "stanford_alpaca"}])
def test_a_hub_that_cannot_be_reached_is_a_clear_error(tmp_path: Path, source: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"'tatsu-lab/alpaca' \(split train\)") as error:
        make(tmp_path / "pool", source)
    assert "HF_HUB_OFFLINE" in error.value.action
    assert not (tmp_path / "pool").exists()


@pytest.mark.parametrize(("name", "value"), [("HTTPS_PROXY", "bogus://x"), ("SSL_CERT_FILE", "/no/such/file.pem")])
def test_a_network_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    for other in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(other, raising=False)
        monkeypatch.delenv(other.upper(), raising=False)
    monkeypatch.setenv(name, value)
    for reading in (
        lambda: make(tmp_path / "pool", {"dataset": "tatsu-lab/alpaca"}),
        lambda: hub.opened_as_stream(Source(name="s", dataset="tatsu-lab/alpaca")),
        lambda: load_split(Wanted("here", "tatsu-lab/alpaca")),
    ):
        with pytest.raises(SettingsError) as refused:
            reading()
        assert refused.value.code == "settings"
        assert name in refused.value.problem
        assert value in refused.value.problem
    make(tmp_path / "local", {"dataset": str(folder_with_splits(tmp_path / "data"))})  # which needs none


def test_a_commit_is_its_own_revision_and_a_branch_that_nobody_resolves_too() -> None:
    assert hub.revision_of("tatsu-lab/alpaca", "0123456789" * 4) == "0123456789" * 4
    assert hub.revision_of("tatsu-lab/alpaca", "v2") == "v2"
    assert hub.revision_of("tatsu-lab/alpaca", None) == "main"


def test_where_the_hub_is_not_to_be_asked_a_branch_is_at_the_commit_that_was_seen_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: pytest.fail("the hub was asked"))
    with hub.as_last_seen({"tatsu-lab/alpaca": "f" * 40}):
        assert hub.revision_of("tatsu-lab/alpaca", None) == "f" * 40
        assert hub.revision_of("tatsu-lab/alpaca", "0123456789" * 4) == "0123456789" * 4
        assert hub.revision_of("org/other", "v2") == "v2"


def test_a_branch_is_resolved_to_its_commit_where_the_hub_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    class Answer:
        sha = "f" * 40

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: Answer())
    assert hub.revision_of("tatsu-lab/alpaca", None) == "f" * 40


def test_a_csv_data_set_reads_numbers_as_such(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_csv(tmp_path / "data" / "train.csv", [row | {"n": i} for i, row in enumerate(pairs(3))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, rows = make(tmp_path / "pool", {"dataset": str(tmp_path / "data"), "where": {"n": 2}})
    assert [row["origin"] for row in rows] == [2]


def _unavailable(status: int) -> Exception:
    """What `datasets` raises for a data set when the Hub answers with this status, with its causes."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    class Answer:
        status_code, headers, request = status, {}, None

    kind = RepositoryNotFoundError if status == 401 else HfHubHTTPError
    refused = kind("refused", response=Answer())  # type: ignore[arg-type]
    error = FileNotFoundError("Couldn't find 'org/x' on the Hugging Face Hub")
    error.__cause__ = refused if status == 401 else LocalEntryNotFoundError("not in the cache")
    error.__cause__.__cause__ = None if status == 401 else refused
    return error


def _ungenerated(cause: Exception) -> Exception:
    error = datasets.exceptions.DatasetGenerationError("An error occurred while generating the dataset")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "permanent"),
    [
        (_unavailable(503), False),
        (_unavailable(429), False),
        (_unavailable(401), True),
        (FileNotFoundError("no such folder"), True),
        (_ungenerated(OSError(errno.ENOSPC, "no space left")), False),
        (_ungenerated(TimeoutError("no answer")), False),
        (_ungenerated(PermissionError(errno.EACCES, "permission denied")), True),
        (_ungenerated(ValueError("not JSON")), True),
        (ConnectionError("no network"), False),
        (ValueError("no such split"), True),
    ],
)
def test_only_what_another_attempt_cannot_help_is_permanent(
    error: Exception, permanent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(InputError) as raised:
        load_split(Wanted(dataset="org/x", split="train", shown="x"))
    assert raised.value.permanent is permanent
