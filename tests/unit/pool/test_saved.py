"""Folders that `save_to_disk` wrote: the split and configuration that are asked for, or an error that says what is."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tamis.core.errors import InputError, SettingsError
from tamis.core.settings import parse
from tamis.pool.settings import PoolSettings
from tamis.pool.sources import count_rows
from tests.unit.pool.making import Row, make, pairs, turns, write_jsonl

datasets = pytest.importorskip("datasets", reason="needs the extra 'hub'")


@pytest.fixture(autouse=True)
def _quiet() -> None:
    datasets.disable_progress_bars()


def data_of(count: int, start: int = 0, **named: Any) -> Any:
    return datasets.Dataset.from_list(pairs(count, start), **named)


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """A folder with the splits `train` (questions 0 to 2) and `prefs` (10 and 11)."""
    folder = tmp_path / "splits"
    datasets.DatasetDict({"train": data_of(3), "prefs": data_of(2, 10)}).save_to_disk(folder)
    return folder


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno == logging.WARNING]


def asked(out: Path, source: Row) -> list[int]:
    """The numbers of the questions that a source gives."""
    return [int(turns(row)[0][1].split()[1].rstrip("?")) for row in make(out, source)[1]]


@pytest.mark.parametrize(
    ("split", "questions"),
    [("train", [0, 1, 2]), ("prefs", [10, 11]), ("train[1:]+prefs[:1]", [1, 2, 10]), ("prefs[50%:]", [11])],
)
def test_the_split_that_is_asked_for_is_read_and_named(
    splits: Path, tmp_path: Path, split: str, questions: list[int]
) -> None:
    source = {"dataset": str(splits), "split": split}
    assert asked(tmp_path / "pool", source) == questions
    facts = make(tmp_path / "pool", source)[0].facts["sources"]["s0"]
    assert (facts["split"], facts.get("other_splits")) == (split, None)


@pytest.mark.parametrize("origin", ["dataset", "path"])
def test_without_a_split_train_is_read_and_the_others_are_named(
    splits: Path, tmp_path: Path, origin: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert asked(tmp_path / "pool", {origin: str(splits)}) == [0, 1, 2]
    facts = make(tmp_path / "pool", {origin: str(splits)})[0].facts["sources"]["s0"]
    assert (facts["split"], facts["other_splits"]) == ("train", ["prefs"])
    first, *again = warnings_in(caplog)
    assert first.args == ("s0", "train", "prefs")
    assert len(again) == 1  # of the same step, reused


@pytest.mark.parametrize(
    ("source", "allowed"),
    [
        ({"split": "test"}, "train, prefs"),
        ({"split": "train[::2]"}, "train, prefs"),
        ({"config": "de"}, "none"),
    ],
)
def test_what_the_folder_has_not_is_refused_with_what_it_has(
    splits: Path, tmp_path: Path, source: Row, allowed: str
) -> None:
    with pytest.raises(InputError) as error:
        make(tmp_path / "pool", {"dataset": str(splits)} | source)
    assert error.value.allowed.split(":")[0] == allowed


def test_several_splits_without_train_are_asked_for(tmp_path: Path) -> None:
    datasets.DatasetDict({"sft": data_of(3), "prefs": data_of(2, 10)}).save_to_disk(tmp_path / "saved")
    for origin in ("dataset", "path"):
        with pytest.raises(InputError) as error:
            make(tmp_path / "pool", {origin: str(tmp_path / "saved")})
        assert error.value.allowed == "sft, prefs"


def test_one_split_of_a_folder_keeps_its_name(splits: Path, tmp_path: Path) -> None:
    one = str(splits / "prefs")
    assert asked(tmp_path / "a", {"dataset": one}) == asked(tmp_path / "b", {"path": one}) == [10, 11]
    assert asked(tmp_path / "c", {"dataset": one, "split": "prefs[:1]"}) == [10]
    with pytest.raises(InputError) as error:
        make(tmp_path / "d", {"dataset": one, "split": "train"})
    assert error.value.allowed == "prefs"
    data_of(4, split=datasets.Split.TEST).save_to_disk(tmp_path / "test")
    assert asked(tmp_path / "e", {"dataset": str(tmp_path / "test"), "split": "test[:2]"}) == [0, 1]


def test_a_data_set_without_a_split_has_none_to_ask_for(tmp_path: Path) -> None:
    data_of(3).save_to_disk(tmp_path / "saved")
    assert "split" not in make(tmp_path / "pool", {"path": str(tmp_path / "saved")})[0].facts["sources"]["s0"]
    with pytest.raises(InputError) as error:
        make(tmp_path / "other", {"dataset": str(tmp_path / "saved"), "split": "test"})
    assert error.value.allowed.startswith("none:")


def test_a_configuration_that_was_saved_may_be_named(tmp_path: Path) -> None:
    info = datasets.DatasetInfo(config_name="en")
    data_of(3, info=info).save_to_disk(tmp_path / "saved")
    source = {"dataset": str(tmp_path / "saved")}
    assert asked(tmp_path / "pool", source | {"config": "en"}) == [0, 1, 2]
    with pytest.raises(InputError) as error:
        make(tmp_path / "other", source | {"config": "de"})
    assert error.value.allowed == "en"


def test_a_revision_of_a_local_folder_is_refused(splits: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        make(tmp_path / "pool", {"dataset": str(splits), "revision": "v1"})


def test_a_damaged_folder_is_a_clear_error(splits: Path, tmp_path: Path) -> None:
    (splits / "train" / "state.json").write_text("{}")
    with pytest.raises(InputError, match=str(splits)):
        make(tmp_path / "pool", {"path": str(splits)})


def test_the_rows_of_a_saved_folder_are_counted_beforehand(splits: Path) -> None:
    settings = parse(PoolSettings, {"sources": [{"name": "s", "path": str(splits)}]}, where="test")
    assert count_rows(str(splits), settings) == 3


def test_folders_of_several_saved_data_sets_and_descriptions_are_no_rows(tmp_path: Path) -> None:
    for name in ("a", "b"):
        data_of(3).save_to_disk(tmp_path / "both" / name)
    with pytest.raises(InputError) as error:
        make(tmp_path / "pool", {"path": str(tmp_path / "both")})
    assert "each folder" in error.value.action


def test_a_hub_folder_with_descriptions_gives_its_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "hub"
    (folder / "data").mkdir(parents=True)
    (folder / "dataset_infos.json").write_text('{"default": {"features": {}}}')
    write_jsonl(folder / "data" / "train-00000-of-00001.jsonl", pairs(3))
    assert asked(tmp_path / "pool", {"path": str(folder)}) == [0, 1, 2]
    assert len(warnings_in(caplog)) == 1  # of the file that stays out
    write_jsonl(folder / "data" / "test-00000-of-00001.jsonl", pairs(2, 10))
    assert asked(tmp_path / "both", {"path": str(folder)}) == [10, 11, 0, 1, 2]
    assert warnings_in(caplog)[-1].args == (str(folder), "test and train")


def test_a_file_of_ones_own_called_state_is_no_saved_data_set(tmp_path: Path) -> None:
    folder = tmp_path / "states"
    folder.mkdir()
    (folder / "state.json").write_text('[{"prompt": "Capital of Ohio?", "completion": "Columbus."}]')
    assert len(make(tmp_path / "pool", {"path": str(folder)})[1]) == 1


def test_a_split_without_rows_is_named_as_the_reason(tmp_path: Path) -> None:
    empty = datasets.Dataset.from_dict({"prompt": [], "completion": []})
    datasets.DatasetDict({"train": data_of(3), "validation": empty}).save_to_disk(tmp_path / "saved")
    with pytest.raises(InputError, match=r"saved .*split"):
        make(tmp_path / "pool", {"path": str(tmp_path / "saved")})
