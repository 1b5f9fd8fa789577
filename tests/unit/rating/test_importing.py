"""Ratings that exist already find their samples by id, row or kept field; what does not fit is counted or refused."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis.core.artifacts import Artifact, Manifest
from tamis.core.errors import InputError, StorageError
from tamis.core.settings import parse
from tamis.pool.settings import PoolSettings
from tamis.pool.stage import run as make_pool_of
from tamis.rating.planning import Plan
from tamis.rating.settings import RatingSettings
from tamis.rating.stage import plan, run
from tests.artifacts import conversation, make_pool
from tests.conftest import shared_data

COUNT = 6


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    samples = [conversation(f"Question {n}?", f"Answer {n}.") for n in range(COUNT)]
    return make_pool(tmp_path / "pool", samples, metadata=[{"key": f"k{n}", "number": n} for n in range(COUNT)])


def ids_of(pool: Path) -> list[str]:
    return Artifact.open(pool).table(["id"])["id"].to_pylist()


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def bring(pool: Path, path: Path | str, *, share: float = 0.05, **backend: Any) -> Manifest:
    values = {"name": "theirs", "max_failure_share": share, "backend": {"kind": "import", "path": str(path), **backend}}
    return run(parse(RatingSettings, values, where="here"), pool=pool, out=pool.parent / "out")


def column(pool: Path, name: str) -> list[Any]:
    return Artifact.open(pool.parent / "out", "ratings").table([name])[name].to_pylist()


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_rows_find_their_samples_by_id_in_any_order(pool: Path, suffix: str) -> None:
    rows = [{"id": sample, "overall": n + 1, "text": "a, b"} for n, sample in enumerate(ids_of(pool))]
    manifest = bring(pool, write(pool.parent / f"r{suffix}", rows[::-1]), by="id")
    assert column(pool, "overall") == [1, 2, 3, 4, 5, 6]
    assert column(pool, "id") == ids_of(pool)
    assert set(column(pool, "rater")) == {"theirs"}
    assert (manifest.name, manifest.rows, manifest.facts["ok"]) == ("theirs", COUNT, COUNT)
    assert manifest.facts["overall_mean"] == 3.5


def test_all_scores_and_the_expected_one_are_taken_where_columns_are_named(pool: Path) -> None:
    rows = [
        {"sample": sample, "r": 1, "c": 2, "i": 3, "o": 4, "e": 4.25 if n else None}
        for n, sample in enumerate(ids_of(pool))
    ]
    names = {"key": "sample", "overall": "o", "rarity": "r", "complexity": "c", "informativeness": "i", "expected": "e"}
    bring(pool, write(pool.parent / "r.parquet", rows), by="id", scale="1-10", **names)
    row = Artifact.open(pool.parent / "out").table().to_pylist()[1]
    assert [row[name] for name in ("rarity", "complexity", "informativeness", "overall", "expected")] == [
        1,
        2,
        3,
        4,
        4.25,
    ]
    assert column(pool, "expected")[0] is None


def test_rows_find_their_samples_by_their_order(pool: Path) -> None:
    bring(pool, write(pool.parent / "r.csv", [{"overall": n + 1} for n in range(COUNT)]), by="row")
    assert column(pool, "overall") == [1, 2, 3, 4, 5, 6]


def test_rows_find_their_samples_by_a_column_of_row_numbers(pool: Path) -> None:
    rows = [{"n": float(n), "overall": n + 1} for n in reversed(range(COUNT))]
    bring(pool, write(pool.parent / "r.csv", rows), by="row", key="n")
    assert column(pool, "overall") == [1, 2, 3, 4, 5, 6]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A pool of two sources, in which rows count from 0 each; its rows are shuffled."""
    samples = [conversation(f"Question {n}?", f"Answer {n}.") for n in range(COUNT)]
    pool = make_pool(tmp_path / "first", samples, source=["a", "a", "a", "b", "b", "b"])
    table = Artifact.open(pool).table()
    table = table.set_column(3, "origin", pa.array([0, 1, 2, 0, 1, 2])).take(pa.array([5, 0, 3, 1, 4, 2]))
    from tests.artifacts import make

    make("pool", tmp_path / "pool", lambda step: pq.write_table(table, step.out / "part-00000.parquet"))
    return tmp_path / "pool"


def test_one_source_of_several_can_be_rated(mixed: Path) -> None:
    manifest = bring(mixed, write(mixed.parent / "r.csv", [{"overall": n + 1} for n in range(3)]), by="row", source="b")
    assert column(mixed, "overall") == [3, None, 1, None, 2, None]
    assert manifest.facts["samples_without_row"] == 3
    assert manifest.facts["errors"] == {"missing: no rating in the file": 3}


def test_a_file_about_all_sources_names_them_in_a_column(mixed: Path) -> None:
    rows = [{"where": source, "overall": n + 1 + 3 * (source == "b")} for n in range(3) for source in "ab"]
    bring(mixed, write(mixed.parent / "r.csv", rows), by="row", source_column="where")
    assert column(mixed, "overall") == [6, 1, 4, 2, 5, 3]


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ({}, ["2 sources", "a, b"]),
        ({"source": "c"}, ["no source 'c'", "a, b"]),
    ],
)
def test_rows_of_an_unclear_source_are_refused(mixed: Path, backend: dict[str, str], words: list[str]) -> None:
    path = write(mixed.parent / "r.csv", [{"overall": 1}])
    with pytest.raises(InputError) as error:
        bring(mixed, path, by="row", **backend)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(("key", "field"), [("key", None), ("number", None), ("no", "number")])
def test_rows_find_their_samples_by_a_kept_field(pool: Path, key: str, field: str | None) -> None:
    rows = [{"key": f"k{n}", "number": n, "no": str(n), "overall": n + 1} for n in reversed(range(COUNT))]
    bring(pool, write(pool.parent / "r.csv", rows), by="metadata", key=key, field=field)
    assert column(pool, "overall") == [1, 2, 3, 4, 5, 6]


def test_a_field_that_no_sample_kept_lists_the_kept_ones(pool: Path) -> None:
    path = write(pool.parent / "r.csv", [{"uid": "x", "overall": 1}])
    with pytest.raises(InputError, match=r"'uid'(.|\n)*key, number"):
        bring(pool, path, by="metadata", key="uid")


def test_a_kept_field_that_names_two_samples_is_refused(tmp_path: Path) -> None:
    samples = [conversation("a", "b"), conversation("c", "d")]
    pool = make_pool(tmp_path / "pool", samples, metadata=[{"key": 1}, {"key": 1}])
    path = write(tmp_path / "r.csv", [{"key": 1, "overall": 1}])
    with pytest.raises(InputError, match=r"sample .*'1'.*sample"):
        bring(pool, path, by="metadata", key="key")


def test_a_row_without_a_key_is_not_the_rating_of_a_sample_without_the_field(tmp_path: Path) -> None:
    samples = [conversation("a", "b"), conversation("c", "d")]
    pool = make_pool(tmp_path / "pool", samples, metadata=[{"key": 1}, {"other": 1}])
    path = write(tmp_path / "r.jsonl", [{"key": 1, "overall": 3}, {"key": None, "overall": 9}])
    manifest = bring(pool, path, by="metadata", key="key")
    assert column(pool, "overall") == [3, None]
    assert (manifest.facts["rows_without_key"], manifest.facts["samples_without_row"]) == (1, 1)


def test_classes_are_kept_as_the_ratings_that_compress_to_them(pool: Path) -> None:
    rows = [{"overall": n} for n in range(COUNT)]
    manifest = bring(pool, write(pool.parent / "r.csv", rows), by="row", scale="classes")
    assert column(pool, "overall") == [4, 5, 6, 7, 8, 9]
    assert manifest.facts["scale"] == "classes"


@pytest.mark.parametrize(
    ("scale", "given", "ratings"),
    [
        ({"lowest": 1, "highest": 5}, [1, 2, 3, 4, 5, 4.5], [1, 3, 6, 8, 10, 9]),
        ({"lowest": 0, "highest": 1}, [0, 0.25, 0.5, 0.75, 1, None], [1, 3, 6, 8, 10, None]),
        ({"lowest": 0, "highest": 100}, [0, 20, 50, 80, 100, 99], [1, 3, 6, 8, 10, 10]),
        ({"lowest": 1, "highest": 2}, [1, 2, 2, 1, 2, 1], [1, 10, 10, 1, 10, 1]),
        ("1-10", [1, 2, 3, 4, 5, 5], [1, 2, 3, 4, 5, 5]),
    ],
)
def test_a_scale_is_stretched_to_that_of_ratings(pool: Path, scale: Any, given: list[Any], ratings: list[Any]) -> None:
    path = write(pool.parent / "r.jsonl", [{"overall": value, "mean": value} for value in given])
    bring(pool, path, by="row", scale=scale, **({} if scale == "1-10" else {"expected": "mean"}))
    assert column(pool, "overall") == ratings
    if scale == {"lowest": 1, "highest": 5}:
        assert column(pool, "expected") == [1, 3.25, 5.5, 7.75, 10, 8.875]


def test_a_score_outside_the_scale_is_refused(pool: Path) -> None:
    path = write(pool.parent / "r.csv", [{"overall": n} for n in range(COUNT)])
    with pytest.raises(InputError, match=r"row 0: out of range: overall is 0, allowed 1 to 5"):
        bring(pool, path, by="row", scale={"lowest": 1, "highest": 5})


@pytest.mark.parametrize("values", [[1, 2, 3, 4, 5, 5], [1, 2, 1, 2, 2, 2], [0, 0, 0, 1, 1, 1]])
def test_scores_that_seem_to_be_on_another_scale_are_asked_about(pool: Path, values: list[int]) -> None:
    path = write(pool.parent / "r.csv", [{"overall": value} for value in values])
    with pytest.raises(InputError, match=r"backend\.scale"):
        bring(pool, path, by="row", share=1)
    assert not (pool.parent / "out").exists()


def test_a_scale_of_seven_is_asked_about_and_a_lower_half_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples = [conversation(f"Question {n}?", f"Answer {n}.") for n in range(35)]
    pool = make_pool(tmp_path / "pool", samples)
    path = write(tmp_path / "r.csv", [{"overall": n % 7 + 1} for n in range(35)])
    with pytest.raises(InputError, match=r"backend\.scale"):
        bring(pool, path, by="row")
    bring(pool, path, by="row", scale={"lowest": 1, "highest": 20})
    assert any("from 1 to 7" in record.message and "1 to 20" in record.message for record in caplog.records)


def test_the_scale_shows_in_all_rows_of_the_file_not_only_in_those_of_the_pool(pool: Path) -> None:
    low = [{"id": sample, "overall": 1 + n % 5} for n, sample in enumerate(ids_of(pool))]
    path = write(pool.parent / "r.jsonl", [*low, {"id": "of another pool", "overall": 10}])
    bring(pool, path, by="id")
    assert column(pool, "overall") == [1, 2, 3, 4, 5, 1]
    shutil.rmtree(pool.parent / "out")
    with pytest.raises(InputError) as error:
        bring(pool, write(path, low), by="id")
    assert "backend.scale" in error.value.action


def test_a_class_of_six_is_refused(pool: Path) -> None:
    path = write(pool.parent / "r.csv", [{"overall": n + 1} for n in range(COUNT)])
    with pytest.raises(InputError, match=r"row 5: out of range: overall is 6, allowed 0 to 5"):
        bring(pool, path, by="row", scale="classes")


def test_classes_that_are_taken_for_ratings_are_noticed_however_few_zeros_there_are(pool: Path) -> None:
    path = write(pool.parent / "r.csv", [{"overall": n} for n in (5, 3, 3, 0, 2, 4)])
    with pytest.raises(InputError, match=r"from 0 to 5(.|\n)*backend\.scale"):
        bring(pool, path, by="row", share=0.5)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_score_of_twelve_is_refused_with_its_row(pool: Path, suffix: str) -> None:
    path = write(pool.parent / f"r{suffix}", [{"overall": 12 if n == 3 else 7} for n in range(COUNT)])
    with pytest.raises(InputError) as error:
        bring(pool, path, by="row")
    for words in ("1 of 6 ratings cannot be used", "row 3: out of range: overall is 12", "from 1 to 10", str(path)):
        assert words in str(error.value)
    assert not (pool.parent / "out").exists()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (12, "out of range: overall is 12, allowed 1 to 10"),
        (0, "out of range: overall is 0, allowed 1 to 10"),
        (7.5, "not an integer: overall is 7.5"),
        ("7/10", "not a number: overall is '7/10'"),
        ("good", "not a number: overall is 'good'"),
        (True, "not a number: overall is 'True'"),
        ([7], "not a number: overall is '[7]'"),
        (None, "no rating in the file"),
        ("", "no rating in the file"),
        (float("nan"), "no rating in the file"),
    ],
)
def test_within_the_budget_a_bad_score_is_counted_and_has_no_value(pool: Path, value: Any, reason: str) -> None:
    path = write(pool.parent / "r.jsonl", [{"overall": value if n == 3 else 7} for n in range(COUNT)])
    manifest = bring(pool, path, by="row", share=0.2)
    assert column(pool, "overall") == [7, 7, 7, None, 7, 7]
    status = "missing" if reason == "no rating in the file" else "unparsable"
    assert column(pool, "status")[3] == status
    assert column(pool, "error") == [None, None, None, reason, None, None]
    assert (manifest.facts["ok"], manifest.facts[status]) == (5, 1)
    assert manifest.facts["errors"] == {f"{status}: {reason.partition(':')[0]}": 1}


@pytest.mark.parametrize("value", [7, 7.0, "7", " 7 ", "7.0"])
def test_files_without_types_may_hold_the_same_score(pool: Path, value: Any) -> None:
    bring(pool, write(pool.parent / "r.jsonl", [{"overall": value}] * COUNT), by="row")
    assert column(pool, "overall") == [7] * COUNT


def test_a_bad_score_beside_a_good_overall_one_spoils_the_rating(pool: Path) -> None:
    path = write(pool.parent / "r.jsonl", [{"overall": 7, "rare": 11 if n == 2 else None} for n in range(COUNT)])
    bring(pool, path, by="row", rarity="rare", share=0.5)
    assert column(pool, "overall") == [7, 7, None, 7, 7, 7]


def test_missing_ratings_are_counted_and_do_not_use_up_the_budget(pool: Path) -> None:
    rows = [{"id": sample, "overall": 5} for sample in ids_of(pool)[:2]]
    rows += [{"id": "of another pool", "overall": 9}, {"id": None, "overall": 5}, {"id": None, "overall": 5}]
    manifest = bring(pool, write(pool.parent / "r.jsonl", rows), by="id", share=0, min_matched_share=0.3)
    assert column(pool, "status") == ["ok", "ok", *["missing"] * 4]
    wanted = {"rows_in_file": 5, "rows_without_key": 2, "rows_not_in_pool": 1, "samples_without_row": 4}
    assert wanted.items() <= manifest.facts.items()


def test_rows_not_in_the_pool_are_told_beside_what_the_pool_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"instruction": f"Say {n % 4}.", "output": "" if n == 3 else f"{n % 4}."} for n in range(COUNT)]
    data = write(tmp_path / "data.jsonl", rows)
    source = {"name": "mine", "path": str(data)}
    with caplog.at_level("INFO", "tamis"):
        make = parse(PoolSettings, {"sources": [source], "max_reject_share": 0.5}, where="here")
        make_pool_of(make, out=tmp_path / "pool")
        bring(tmp_path / "pool", write(tmp_path / "r.csv", [{"overall": n + 1} for n in range(COUNT)]), by="row")
    texts = [record.getMessage() for record in caplog.records]
    assert any("2 of 6 rows" in text for text in texts)
    assert any("rows not in pool: 3" in text and "2 duplicates, 1 rejected" in text for text in texts)


def test_a_key_that_occurs_twice_is_refused(pool: Path) -> None:
    rows = [{"id": ids_of(pool)[n % 4], "overall": 5} for n in range(COUNT)]
    with pytest.raises(InputError, match=f"row 4 .*'{rows[4]['id']}'.*row 0"):
        bring(pool, write(pool.parent / "r.csv", rows), by="id")


def test_keys_that_match_nothing_are_shown_beside_the_pools(pool: Path) -> None:
    path = write(pool.parent / "r.csv", [{"id": "x1", "overall": 5}])
    with pytest.raises(InputError) as error:
        bring(pool, path, by="id")
    assert "'x1'" in str(error.value)
    assert ids_of(pool)[0] in str(error.value)
    assert "by: metadata" in str(error.value)


def test_a_file_of_which_most_rows_match_nothing_is_refused(tmp_path: Path) -> None:
    samples = [conversation(f"Question {n}?", f"Answer {n}.") for n in range(120)]
    pool = make_pool(tmp_path / "pool", samples)
    rows = [{"id": sample if n < 10 else f"{n:032x}", "overall": 7} for n, sample in enumerate(ids_of(pool))]
    with pytest.raises(InputError, match=r"10 of 120 rows .*120 samples(.|\n)*min_matched_share"):
        bring(pool, write(tmp_path / "r.csv", rows), by="id")
    manifest = bring(pool, write(tmp_path / "r.csv", rows[:10]), by="id")  # all of its rows match
    assert (manifest.facts["rows_in_pool"], manifest.facts["rows_not_in_pool"]) == (10, 0)


def test_blank_lines_move_no_rating_to_another_sample(tmp_path: Path) -> None:
    rows = [{"instruction": f"Question {n}?", "output": f"Answer {n}.", "overall": 10 - n} for n in range(8)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n\n".join(json.dumps(row) for row in rows) + "\n\n")
    source = {"name": "mine", "path": str(path), "schema": "instruction", "keep": ["overall"]}
    make_pool_of(parse(PoolSettings, {"sources": [source]}, where="here"), out=tmp_path / "pool")
    kept = Artifact.open(tmp_path / "pool").table(["metadata"])["metadata"].to_pylist()
    given = [json.loads(text)["overall"] for text in kept]
    bring(tmp_path / "pool", path, by="row")
    assert column(tmp_path / "pool", "overall") == given
    numbered = [{"row": n, "overall": 10 - n} for n in range(8)]  # as pandas counts them
    (tmp_path / "out").rename(tmp_path / "first")
    bring(tmp_path / "pool", write(tmp_path / "r.csv", numbered), by="row", key="row")
    assert column(tmp_path / "pool", "overall") == given


def rows_of(count: int) -> list[dict[str, Any]]:
    return [{"instruction": f"Question {n}?", "output": f"Answer {n}.", "overall": n % 10 + 1} for n in range(count)]


def made_of(path: Path, **source: Any) -> Path:
    """A pool as the pool stage makes it of a file, which keeps the right ratings."""
    settings = {"sources": [{"name": "mine", "path": str(path), "keep": ["overall"], **source}]}
    make_pool_of(parse(PoolSettings, settings, where="here"), out=path.parent / "pool")
    return path.parent / "pool"


def right(pool: Path) -> list[int]:
    return [json.loads(text)["overall"] for text in Artifact.open(pool).table(["metadata"])["metadata"].to_pylist()]


@pytest.mark.parametrize("kept", [range(20), range(3, 20), range(12)])
def test_row_numbers_that_may_count_from_one_are_asked_about(tmp_path: Path, kept: range) -> None:
    rows = rows_of(20)
    pool = made_of(write(tmp_path / "data.jsonl", rows))
    numbered = write(tmp_path / "r.csv", [{"no": n + 1, "overall": rows[n]["overall"]} for n in kept])
    with pytest.raises(InputError) as error:
        bring(pool, numbered, by="row", key="no")
    assert error.value.code == "input"
    assert "backend.first_row" in error.value.allowed
    assert not (tmp_path / "out").exists()
    facts = bring(pool, numbered, by="row", key="no", first_row=1).facts
    assert column(pool, "overall") == [score if n in kept else None for n, score in enumerate(right(pool))]
    assert (facts["rows_in_pool"], facts["rows_not_in_pool"]) == (len(kept), 0)


def test_row_numbers_of_one_source_say_nothing_of_anothers(tmp_path: Path) -> None:
    rows = {name: [row | {"output": name} for row in rows_of(20)] for name in ("a", "b")}
    files = {name: str(write(tmp_path / f"{name}.jsonl", those)) for name, those in rows.items()}
    values = {"sources": [{"name": name, "path": path} for name, path in files.items()]}
    make_pool_of(parse(PoolSettings, values, where="here"), out=tmp_path / "pool")
    numbered = [{"no": n + (name == "b"), "of": name, "overall": n % 10 + 1} for name in rows for n in range(20)]
    with pytest.raises(InputError) as error:
        bring(tmp_path / "pool", write(tmp_path / "r.csv", numbered), by="row", key="no", source_column="of")
    assert "'b'" in error.value.problem
    assert "backend.first_row" in error.value.allowed


def test_row_numbers_without_the_first_row_may_count_from_zero(tmp_path: Path) -> None:
    rows = rows_of(20)
    pool = made_of(write(tmp_path / "data.jsonl", rows))
    numbered = write(tmp_path / "r.csv", [{"no": n, "overall": rows[n]["overall"]} for n in range(1, 20)])
    bring(pool, numbered, by="row", key="no", first_row=0)
    assert column(pool, "overall") == [None, *right(pool)[1:]]
    later = write(tmp_path / "later.csv", [{"no": n, "overall": rows[n]["overall"]} for n in range(2, 20)])
    shutil.rmtree(tmp_path / "out")
    bring(pool, later, by="row", key="no")  # cannot count from 1: then a row would be missing at the end, too
    assert column(pool, "overall") == [None, None, *right(pool)[2:]]


def test_a_row_zero_is_refused_where_rows_count_from_one(pool: Path) -> None:
    path = write(pool.parent / "r.csv", [{"n": n, "overall": n + 1} for n in range(COUNT)])
    with pytest.raises(InputError) as error:
        bring(pool, path, by="row", key="n", first_row=1)
    assert "backend.first_row: 1" in error.value.allowed


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("wrong", ["order", "shift"])
def test_texts_of_the_file_show_that_ratings_are_of_other_samples(tmp_path: Path, suffix: str, wrong: str) -> None:
    rows = rows_of(20)
    pool = made_of(write(tmp_path / "data.jsonl", rows))
    good = bring(pool, write(tmp_path / f"good{suffix}", rows), by="row").facts
    assert (good["texts_checked"], good["texts_that_differ"]) == (20, 0)
    assert column(pool, "overall") == right(pool)
    shutil.rmtree(tmp_path / "out")
    moved = rows[::-1] if wrong == "order" else [rows[-1], *rows[:-1]]
    path = write(tmp_path / f"moved{suffix}", moved)
    with pytest.raises(InputError) as error:
        bring(pool, path, by="row")
    assert error.value.code == "input"
    assert "20 of 20" in error.value.problem
    assert "max_text_mismatch_share" in error.value.allowed
    assert not (tmp_path / "out").exists()
    facts = bring(pool, path, by="row", max_text_mismatch_share=1).facts
    assert (facts["texts_checked"], facts["texts_that_differ"]) == (20, 20)


def test_texts_are_known_by_the_names_that_the_source_gives_them(tmp_path: Path) -> None:
    rows = [{"q": f"Question {n}?", "a": f"Answer  {n}.\n" + "long " * 50, "overall": n % 10 + 1} for n in range(40)]
    named = {"schema": "prompt_completion", "fields": {"prompt": "q", "completion": "a"}}
    pool = made_of(write(tmp_path / "data.jsonl", rows), **named)
    one_wrong = [*rows[:-1], rows[-1] | {"q": "Another?"}]
    noisy = [row | {"output": "Score: 7"} for row in one_wrong]  # no field of this source
    facts = bring(pool, write(tmp_path / "r.jsonl", noisy), by="row").facts
    assert (facts["texts_checked"], facts["texts_that_differ"]) == (40, 1)


def test_texts_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    long = "Read the review and say whether its sentiment is positive or negative. " * 4
    rows = [{"instruction": f"{long}{n}", "output": ("no", "yes")[n % 2], "overall": n % 10 + 1} for n in range(40)]
    pool = made_of(write(tmp_path / "data.jsonl", rows))
    with pytest.raises(InputError) as error:
        bring(pool, write(tmp_path / "r.jsonl", rows[::-1]), by="row")
    assert "40 of 40" in error.value.problem
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    facts = bring(pool, write(tmp_path / "right.jsonl", rows), by="row").facts
    assert (facts["texts_checked"], facts["texts_that_differ"]) == (40, 0)


@pytest.mark.parametrize(
    ("own", "theirs"),
    [
        ("caf\u00e9 {n}", "cafe\u0301 {n}"),
        ('a < b & "c" {n}', "a &lt; b &amp; &quot;c&quot; {n}"),
        ("it\u2019s {n}", "it's {n}"),
        ("x\u00a0y {n}", "x  y\n{n}"),
        ("x\u200by {n}", "xy {n}"),
        ("{n} is a long text with an end", "{n} is a long\u2026"),
        ("{n} is a long text with an end", "{n} is a lo..."),
        ("{n} ends so...", "{n} ends so..."),
        ('["a {n}", "b"]', '["a {n}", "b"]'),
    ],
)
def test_texts_that_programs_have_changed_on_their_way_are_the_same(tmp_path: Path, own: str, theirs: str) -> None:
    rows = rows_of(20)
    pool = made_of(write(tmp_path / "data.jsonl", [row | {"output": own.format(n=n)} for n, row in enumerate(rows)]))
    given = [{"output": theirs.format(n=n), "overall": row["overall"]} for n, row in enumerate(rows)]
    facts = bring(pool, write(tmp_path / "r.jsonl", given), by="row").facts
    assert (facts["texts_checked"], facts["texts_that_differ"]) == (20, 0)
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(InputError):
        bring(pool, write(tmp_path / "other.jsonl", given[::-1]), by="row")


def test_instruction_and_input_are_parts_of_a_prompt(tmp_path: Path) -> None:
    rows = [row | {"input": f"Context {n}" if n % 2 else ""} for n, row in enumerate(rows_of(20))]
    pool = made_of(write(tmp_path / "data.jsonl", rows))
    facts = bring(pool, write(tmp_path / "r.jsonl", rows), by="row").facts
    assert (facts["texts_checked"], facts["texts_that_differ"]) == (20, 0)


def test_a_column_that_is_no_text_of_the_data_is_left_out_beside_one_that_is(tmp_path: Path) -> None:
    rows = rows_of(20)
    pool = made_of(write(tmp_path / "data.jsonl", rows))
    said = [row | {"output": f"I give this a {row['overall']}, for {n} reasons"} for n, row in enumerate(rows)]
    facts = bring(pool, write(tmp_path / "r.jsonl", said), by="row").facts
    assert (facts["texts_checked"], facts["texts_that_differ"]) == (20, 0)
    shutil.rmtree(tmp_path / "out")
    sorted_labels = [row | {"output": "no" if n < 11 else "yes"} for n, row in enumerate(rows)]
    shutil.rmtree(pool)
    pool = made_of(write(tmp_path / "labels.jsonl", sorted_labels))
    with pytest.raises(InputError):  # few different texts show nothing of the order
        bring(pool, write(tmp_path / "shifted.jsonl", [sorted_labels[-1], *sorted_labels[:-1]]), by="row")


def test_rows_with_the_text_of_most_rows_are_not_compared(tmp_path: Path) -> None:
    rows = [row | {"output": "Yes." if n < 12 else f"No, {n}."} for n, row in enumerate(rows_of(20))]
    pool = made_of(write(tmp_path / "data.jsonl", rows))
    given = [{"output": row["output"], "overall": row["overall"]} for row in rows]
    facts = bring(pool, write(tmp_path / "r.jsonl", given), by="row").facts
    assert (facts["texts_checked"], facts["texts_that_differ"]) == (8, 0)


def test_conversations_in_a_file_of_ratings_are_compared(tmp_path: Path) -> None:
    talks = [conversation(f"Question {n}?", f"Answer {n}.", "And?", f"Nothing {n}.") for n in range(12)]
    rows = [{"messages": talk, "overall": n % 10 + 1} for n, talk in enumerate(talks)]
    pool = made_of(write(tmp_path / "data.jsonl", rows))
    assert bring(pool, write(tmp_path / "r.parquet", rows), by="row").facts["texts_that_differ"] == 0
    shutil.rmtree(tmp_path / "out")
    as_text = [{"messages": json.dumps(row["messages"]), "overall": row["overall"]} for row in rows[::-1]]
    with pytest.raises(InputError) as error:
        bring(pool, write(tmp_path / "r.csv", as_text), by="row")
    assert "12 of 12" in error.value.problem


def test_a_file_by_rows_that_is_too_short_is_refused(pool: Path) -> None:
    path = write(pool.parent / "r.csv", [{"overall": 5} for _ in range(COUNT - 1)])
    with pytest.raises(InputError, match=r"has 5 rows .*row 5\b"):
        bring(pool, path, by="row")


def test_tenths_of_floats_are_tenths(pool: Path) -> None:
    tenths = [0.1 * number for number in (0, 2, 3, 6, 7, 10)]
    table = pa.table({"key": [f"k{n}" for n in range(COUNT)], "overall": pa.array(tenths, pa.float32())})
    pq.write_table(table, pool.parent / "r.parquet")
    scale = {"lowest": 0, "highest": 1, "step": 0.1}
    bring(pool, pool.parent / "r.parquet", by="metadata", key="key", scale=scale)
    single = column(pool, "overall")
    shutil.rmtree(pool.parent / "out")
    rows = [{"key": f"k{n}", "overall": sum([0.1] * number)} for n, number in enumerate((0, 2, 3, 6, 7, 10))]
    bring(pool, write(pool.parent / "r.jsonl", rows), by="metadata", key="key", scale=scale)
    assert single == column(pool, "overall") == [1, 3, 4, 6, 7, 10]


def test_between_two_steps_is_not_on_the_scale(pool: Path) -> None:
    path = write(pool.parent / "r.jsonl", [{"key": f"k{n}", "overall": 0.25} for n in range(COUNT)])
    with pytest.raises(InputError):
        bring(pool, path, by="metadata", key="key", scale={"lowest": 0, "highest": 1, "step": 0.1})


def test_a_file_without_any_rating_is_refused(pool: Path) -> None:
    path = write(pool.parent / "r.csv", [{"key": f"k{n}", "overall": ""} for n in range(COUNT)])
    with pytest.raises(InputError, match="overall"):
        bring(pool, path, by="metadata", key="key", scale={"lowest": 1, "highest": 5})


def test_rows_without_a_rating_are_no_scores_of_a_small_scale(tmp_path: Path) -> None:
    samples = [conversation(f"Question {n}?", f"Answer {n}.") for n in range(60)]
    pool = make_pool(tmp_path / "pool", samples, metadata=[{"key": f"k{n}"} for n in range(60)])
    given = {0: 7, 1: 6, 2: 3, 3: 2, 4: 7, 5: 1}
    path = write(tmp_path / "r.csv", [{"key": f"k{n}", "overall": given.get(n, "")} for n in range(60)])
    assert bring(pool, path, by="metadata", key="key").facts["ok"] == 6


def test_a_missing_column_lists_those_that_are_there(pool: Path) -> None:
    path = write(pool.parent / "r.csv", [{"key": "k1", "score": 5}])
    with pytest.raises(InputError, match=r"no column 'overall'\n +allowed: key, score"):
        bring(pool, path, by="row")


def test_a_row_number_that_is_none_is_named(pool: Path) -> None:
    path = write(pool.parent / "r.csv", [{"n": "first", "overall": 5}])
    with pytest.raises(InputError, match="row 0: not a number: n is 'first'"):
        bring(pool, path, by="row", key="n")


def test_a_path_with_nothing_is_named(pool: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere\.csv does not exist"):
        bring(pool, tmp_path / "nowhere.csv", by="row")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("r.xlsx", b"x", "ends in .jsonl, .ndjson, .csv, .parquet"),
        ("r.csv", b"", "no column 'overall'"),
        ("r.csv", b"overall\n", "has no rows"),
        ("r.csv", b"overall,x\n5\n", "row 0"),
        ("r.csv", b"overall,overall\n5,5\n", "the column 'overall' 2 times"),
        ("r.csv", b'overall\n"5\n', "is not CSV"),
        ("r.csv", b"overall\n\xff\n", "is not UTF-8"),
        ("r.jsonl", b'{"overall": 5}\n{"overall": \n', "line 2 is not JSON"),
        ("r.jsonl", b"5\n", "line 1"),
        ("r.parquet", b"overall\n5\n", "r.parquet: "),
    ],
)
def test_a_file_that_cannot_be_read_is_explained(pool: Path, name: str, content: bytes, words: str) -> None:
    (pool.parent / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        bring(pool, pool.parent / name, by="row")
    assert words in str(error.value)


def test_a_plan_of_an_import_asks_nobody(pool: Path) -> None:
    values = {"name": "theirs", "backend": {"kind": "import", "path": "r.csv", "by": "row"}}
    assert plan(parse(RatingSettings, values, where="here"), pool=pool) == Plan(samples=COUNT)


@pytest.mark.parametrize("rater", ["gpt_4o_mini", "llama_3_1_8b_instruct", "mistral_7b_v0_3_instruct"])
def test_the_papers_own_ratings_come_in_as_they_are(tmp_path: Path, rater: str) -> None:
    file = shared_data("rated", "alpaca_52002.parquet")
    table = pq.read_table(file).slice(0, 2000)
    samples = [
        conversation(f"{row['instruction']}\n{row['input']}".strip(), row["output"] or "-") for row in table.to_pylist()
    ]
    pool = make_pool(tmp_path / "pool", samples)
    manifest = bring(pool, file, by="row", overall=rater, scale="classes")
    assert [value - 4 for value in column(pool, "overall")] == table[rater].to_pylist()
    assert manifest.facts["rows_not_in_pool"] == 50_002
