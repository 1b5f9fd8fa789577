"""What the first rows of a source tell before anything is read or spent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tamis.core.errors import InputError, StorageError
from tamis.pool.checking import FirstRows, look_into
from tests.unit.pool.making import Row, make, pairs, settings_of, write_csv, write_json, write_jsonl, write_parquet


def looked(source: Row, **settings: float) -> FirstRows | None:
    """What is found of one source, shares checked."""
    given = settings_of(source, **settings)
    found = look_into(given.sources[0], given)
    if found is not None:
        found.check_shares("s0", given)
    return found


def test_every_file_is_looked_into_for_its_first_rows(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [*pairs(500), "no row"])
    write_json(tmp_path / "b.json", pairs(7))
    write_csv(tmp_path / "c.csv", pairs(7))
    write_parquet(tmp_path / "d.parquet", pairs(7))
    found = looked({"path": str(tmp_path)})
    assert found is not None
    assert (found.files, found.rows, found.rejected.total()) == (4, 121, 0)
    assert found.mapping is not None
    assert found.mapping.schema == "prompt_completion"


def test_a_file_of_an_unknown_layout_is_told_before_a_row_is_read(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", pairs(3))
    write_jsonl(tmp_path / "b.jsonl", [{"question": "Add.", "reply": "3"}])
    source = {"path": str(tmp_path / "*.jsonl")}
    with pytest.raises(InputError) as error:
        looked(source)
    assert (error.value.code, "b.jsonl" in error.value.problem) == ("input", True)
    with pytest.raises(InputError) as error:
        make(tmp_path / "pool", {"path": str(tmp_path / "a.jsonl")}, source)
    assert "'question'" in error.value.problem
    assert make(tmp_path / "first", source | {"limit": 2})[0].rows == 2  # the second file is not read


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_rows_that_are_not_utf_8_are_told(tmp_path: Path, bad: int) -> None:
    lines = [f'{{"prompt": "Q{i}", "completion": "{"Ü" if i < bad else "U"}"}}' for i in range(10)]
    (tmp_path / "a.jsonl").write_bytes("\n".join(lines).encode("latin-1"))
    if bad < 2:
        found = looked({"path": str(tmp_path / "a.jsonl")})
        assert found is not None
        assert found.rejected == ({"not UTF-8": bad} if bad else {})
    else:
        with pytest.raises(InputError):
            looked({"path": str(tmp_path / "a.jsonl")})


def test_fields_that_change_what_is_taught_are_told(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [row | {"system": "Be brief."} for row in pairs(9)])
    with pytest.raises(InputError) as error:
        looked({"path": str(path)})
    assert "pool.max_lost_share" in error.value.allowed
    assert looked({"path": str(path), "fields": {"system": "system"}}) is not None


def test_rows_that_where_leaves_out_do_not_count(tmp_path: Path) -> None:
    rows = [{"prompt": "", "completion": "", "lang": "de"}, *({"lang": "en"} | row for row in pairs(2))]
    found = looked({"path": str(write_jsonl(tmp_path / "a.jsonl", rows)), "where": {"lang": "en"}})
    assert found is not None
    assert (found.rows, found.rejected.total()) == (2, 0)


def test_what_is_elsewhere_is_not_looked_into(tmp_path: Path) -> None:
    assert looked({"recipe": "dolly"}) is None
    assert looked({"dataset": "tatsu-lab/alpaca"}) is None
    assert looked({"path": "s3://bucket/rows.jsonl"}) is None
    with pytest.raises(StorageError):
        looked({"path": str(tmp_path / "no.jsonl")})


def test_a_saved_data_set_is_looked_into(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra 'hub'")
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(pairs(5)).save_to_disk(tmp_path / "saved")
    for origin in ("path", "dataset"):
        found = looked({origin: str(tmp_path / "saved")})
        assert found is not None
        assert found.rows == 5
