"""Human grades, read from files and from the pool."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError, SettingsError, StorageError
from tamis.core.ids import Keys, pack
from tamis.core.samples import sample_id
from tamis.core.settings import parse
from tamis.curation.agreement import agreement
from tamis.curation.grade_files import graded_in_pool, read_ids
from tamis.curation.grades import Grades, check_files, fingerprints, read_grades
from tamis.curation.settings import CurationSettings, GradesSettings
from tests.artifacts import conversation, make_pool

NAMES = [f"{i * 7919:032x}" for i in range(1, 9)]
IDS: Keys = pack(pa.array(NAMES), where="test")


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def read(tmp_path: Path, *rows: dict[str, Any], ids: Keys = IDS, **settings: Any) -> Grades:
    path = written(tmp_path / "grades.jsonl", list(rows))
    return read_grades(GradesSettings(path=path, **settings), ids, lowest=4, highest=9, scratch=tmp_path)


def row(number: int, grade: Any, **more: Any) -> dict[str, Any]:
    return {"id": NAMES[number], "grade": grade, **more}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_grades_of_every_kind_of_file_become_classes_in_the_graph_s_order(kind: str, tmp_path: Path) -> None:
    rows = [row(5, 9), row(0, 3), row(2, 7), row(3, None)]
    path = written(tmp_path / f"grades.{kind}", rows)
    grades = read_grades(GradesSettings(path=path), IDS, lowest=4, highest=9, scratch=tmp_path)
    assert grades.classes.dtype == np.int8
    assert grades.classes.tolist() == [0, -1, 3, -1, -1, 5, -1, -1]
    assert (grades.graded, grades.empty, grades.unknown, grades.weighted) == (3, 1, 0, False)
    assert np.isnan(grades.weights).all()


def test_several_graders_of_a_sample_are_averaged_before_the_class_is_made(tmp_path: Path) -> None:
    # 4, 4 and 7 are classes 0, 0 and 3; their mean, 5, is class 1. 6 and 7 are rounded half up.
    given = [row(0, value, grader=who) for value, who in ((4, "a"), (4, "b"), (7, "c"))]
    given += [row(1, 6, grader="a"), row(1, 7, grader="b")]
    assert read(tmp_path, *given).classes.tolist()[:2] == [1, 3]


def test_another_scale_is_stretched_to_that_of_ratings(tmp_path: Path) -> None:
    rows = [row(number, value) for number, value in enumerate((1, 2, 3, 4, 5))]
    stretched = [1, 3.25, 5.5, 7.75, 10]  # as ratings 1, 3, 6, 8, 10
    grades = read(tmp_path, *rows, scale={"lowest": 1, "highest": 5})
    assert grades.classes.tolist()[:5] == [int(np.clip(np.floor(value + 0.5), 4, 9) - 4) for value in stretched]
    third = read(tmp_path, row(0, 0.5), scale={"lowest": 0.2, "highest": 0.8})  # 5.5, but for the last digits
    assert third.classes[0] == 2


@pytest.mark.parametrize("value", [0, 11, 10.5, -1])
def test_a_grade_outside_the_scale_is_refused_with_its_id_and_the_scale(value: float, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read(tmp_path, row(0, 5), row(3, value))
    assert NAMES[3] in str(error.value)
    assert f"the grade {value:g}" in str(error.value)
    assert "row 1 (the first is 0)" in str(error.value)
    assert "1 to 10" in error.value.allowed


@pytest.mark.parametrize("value", ["good", "7,5", True, [7]])
def test_a_grade_that_is_no_number_is_refused_with_its_id(value: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{NAMES[2]}: not a number"):
        read(tmp_path, row(0, 5), row(2, value))


def test_one_grader_s_second_grade_of_a_sample_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"the grader 'ann' graded the sample {NAMES[1]} more than once: 5 in .* 6 in"):
        read(tmp_path, row(0, 5, grader="ann"), row(1, 5, grader="ann"), row(1, 6, grader=" ann "))
    with pytest.raises(InputError, match="the column 'grader' is empty"):
        read(tmp_path, row(1, 5), row(1, 6))


def test_a_grader_s_second_grade_in_another_file_is_refused(tmp_path: Path) -> None:
    paths = [written(tmp_path / f"{name}.csv", [row(0, 5, grader="ann")]) for name in ("one", "two")]
    with pytest.raises(InputError, match=r"one\.csv, row 0 .*two\.csv, row 0"):
        read_grades(GradesSettings(path=tuple(paths)), IDS, lowest=4, highest=9, scratch=tmp_path)


def test_several_files_are_read_together(tmp_path: Path) -> None:
    first = written(tmp_path / "ann.csv", [row(0, 5, grader="ann"), row(1, 8, grader="ann")])
    second = written(tmp_path / "bob.jsonl", [row(0, 7, grader="bob")])
    settings = GradesSettings(path=(first, second))
    grades = read_grades(settings, IDS, lowest=4, highest=9, scratch=tmp_path)
    assert grades.classes.tolist()[:3] == [2, 4, -1]
    assert grades.agreement["graders"] == 2
    assert list(fingerprints(settings)) == ["grades 1", "grades 2"]
    with pytest.raises(StorageError, match="does not exist"):
        fingerprints(GradesSettings(path=str(tmp_path / "gone.csv")))


def test_grades_of_other_samples_are_counted_and_are_an_error_where_there_are_no_others(tmp_path: Path) -> None:
    other = {"id": "f" * 32, "grade": 5}
    grades = read(tmp_path, other | {"grader": "a"}, other | {"grader": "b"}, row(0, 5))  # half of the samples
    assert (grades.unknown, grades.graded) == (2, 1)
    with pytest.raises(InputError, match=f"none of the 1 samples with a grade is in the neighbour graph.*{'f' * 32}"):
        read(tmp_path, other)
    with pytest.raises(InputError, match="entry 1 is 'mine'"):
        read(tmp_path, {"id": "mine", "grade": 5})


def test_grades_of_which_most_are_of_other_samples_are_refused(tmp_path: Path) -> None:
    rows = [row(0, 5), *({"id": f"{number:032x}", "grade": 9} for number in range(1, 100))]
    with pytest.raises(InputError) as error:
        read(tmp_path, *rows)
    assert error.value.code == "input"
    assert "1 of 100 graded samples are among the 8" in error.value.problem
    assert "grades.min_matched_share" in error.value.allowed
    grades = read(tmp_path, *rows, min_matched_share=0.01)
    assert (grades.graded, grades.unknown, len(grades.warnings)) == (1, 99, 1)
    assert read(tmp_path, *rows[:1]).graded == 1  # all of them


def test_a_sheet_that_nobody_filled_in_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no sample has a grade"):
        read(tmp_path, row(0, None), row(1, ""))


def test_weights_are_kept_of_what_was_drawn_at_random(tmp_path: Path) -> None:
    grades = read(tmp_path, row(0, 5, weight=12.5), row(1, 6, weight=None), row(2, 6, weight="1"))
    assert grades.weighted
    np.testing.assert_array_equal(grades.weights[:4], [12.5, np.nan, 1, np.nan])
    with pytest.raises(InputError, match=r"has the weight 0\.5"):
        read(tmp_path, row(0, 5, weight=0.5))


def pool_of(folder: Path, grades: list[Any]) -> tuple[Artifact, Keys]:
    samples = [conversation(f"question {i}", "answer") for i in range(len(grades))]
    kept = [{"grade": grade, "note": "n"} if grade != "none" else {} for grade in grades]
    pool = Artifact.open(make_pool(folder / "pool", samples, metadata=kept), "pool")
    return pool, pack(pa.array([sample_id(sample) for sample in samples]), where="test")


def test_grades_of_the_pool_s_own_field_are_read(tmp_path: Path) -> None:
    pool, ids = pool_of(tmp_path, [7, None, "9", "none", 4.5])
    settings = GradesSettings(column="grade")
    grades = read_grades(settings, ids[::-1], lowest=4, highest=9, scratch=tmp_path, pool=pool)
    assert grades.classes.tolist() == [1, -1, 5, -1, 3]
    assert grades.agreement["samples_with_several"] == 0
    assert fingerprints(settings) == {}
    assert len(graded_in_pool(pool, "grade")) == 3
    assert read_grades(settings, ids[:2], lowest=4, highest=9, scratch=tmp_path, pool=pool).unknown == 2


def test_a_field_that_the_pool_lacks_is_refused_with_those_that_it_has(tmp_path: Path) -> None:
    pool, ids = pool_of(tmp_path, [7, 8])
    with pytest.raises(InputError) as error:
        read_grades(GradesSettings(column="truth"), ids, lowest=4, highest=9, scratch=tmp_path, pool=pool)
    assert error.value.allowed == "grade, note"
    with pytest.raises(SettingsError, match="a field of the pool"):
        read_grades(GradesSettings(column="grade"), ids, lowest=4, highest=9, scratch=tmp_path)


def test_a_field_s_value_outside_the_scale_is_refused_with_its_id(tmp_path: Path) -> None:
    pool, ids = pool_of(tmp_path, [7, 12])
    name = pool.table(["id"])["id"][1].as_py()
    with pytest.raises(InputError, match=f"the pool's field 'grade': the sample {name} has the grade 12"):
        read_grades(GradesSettings(column="grade"), ids, lowest=4, highest=9, scratch=tmp_path, pool=pool)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "neither is given"),
        ({"column": "grade", "path": "grades.csv"}, "both are given"),
        ({"path": "grades.csv", "scale": {"lowest": 5, "highest": 5}}, "highest (5) must be above lowest (5)"),
        ({"path": ""}, "at least 1"),
        ({"path": []}, "at least 1"),
        ({"file": "grades.csv"}, "unknown setting"),
    ],
)
def test_wrong_settings_are_explained(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as error:
        parse(CurationSettings, {"grades": values}, where="test")
    assert message in str(error.value)


def test_a_file_or_several_can_be_named(tmp_path: Path) -> None:
    assert parse(CurationSettings, {"grades": {"path": "a.csv"}}, where="t").grades == GradesSettings(path="a.csv")
    several = parse(CurationSettings, {"grades": {"path": ["a.csv", "b.csv"]}}, where="t").grades
    assert several is not None
    assert several.paths == ("a.csv", "b.csv")
    assert parse(CurationSettings, {}, where="t").grades is None
    path = written(tmp_path / "grades.csv", [row(0, 5), row(1, None)])
    assert read_ids(path, tmp_path) == {NAMES[0], NAMES[1]}


# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section D: four observers, twelve units.
OBSERVED = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""


def observed() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = [line.split() for line in OBSERVED.strip().splitlines()]
    found = [
        (unit, observer, float(value))
        for observer, line in enumerate(table)
        for unit, value in enumerate(line)
        if value != "."
    ]
    units, observers, values = map(np.array, zip(*found, strict=True))
    return units, observers, values


def test_alpha_is_that_of_krippendorff_s_own_example() -> None:
    units, observers, values = observed()
    found = agreement(units, observers, values, values.astype(np.int8))
    assert found["krippendorff_alpha"] == pytest.approx(0.849, abs=5e-4)
    assert (found["graders"], found["samples"], found["samples_with_several"]) == (4, 12, 11)


def test_agreement_is_counted_over_the_pairs_of_graders() -> None:
    units, observers, values = observed()
    pairs = [
        abs(a - b)
        for i, (u, a) in enumerate(zip(units, values, strict=True))
        for v, b in zip(units[:i], values[:i], strict=True)
        if u == v
    ]
    found = agreement(units, observers, values, values.astype(np.int8))
    assert found["pairs"] == len(pairs)
    assert found["equal_class"] == pytest.approx(np.mean([gap == 0 for gap in pairs]))
    assert found["within_one"] == pytest.approx(np.mean([gap <= 1 for gap in pairs]))


def test_agreement_of_one_grader_or_of_equal_grades_is_unknown() -> None:
    alone = agreement(np.array([0, 1]), np.array([0, 0]), np.array([3.0, 4.0]), np.array([0, 0], np.int8))
    assert (alone["pairs"], alone["equal_class"], alone["krippendorff_alpha"]) == (0, None, None)
    equal = agreement(np.array([0, 0]), np.array([0, 1]), np.array([5.0, 5.0]), np.array([1, 1], np.int8))
    assert (equal["equal_class"], equal["within_one"], equal["krippendorff_alpha"]) == (1.0, 1.0, None)


def test_graders_at_random_have_an_alpha_near_zero() -> None:
    random = np.random.default_rng(0)
    values = random.integers(1, 11, 4000).astype(float)
    found = agreement(np.repeat(np.arange(2000), 2), np.tile([0, 1], 2000), values, values.astype(np.int8))
    assert abs(found["krippendorff_alpha"]) < 0.06


@pytest.mark.parametrize(
    ("values", "scale", "refused", "warned"),
    [
        ([1, 2, 3, 4, 5], None, True, False),
        ([1, 2, 3, 4], None, False, False),  # too few to ask
        ([1, 2, 3, 4, 6], None, False, False),
        ([1, 2, 3, 4, 5], {"lowest": 1, "highest": 10}, False, False),
        ([1, 5] * 15, {"lowest": 1, "highest": 10}, False, True),
        ([1, 6] * 15, {"lowest": 1, "highest": 10}, False, False),
        ([1, 7] * 15, None, True, False),
        ([0.1, 0.4] * 15, {"lowest": 0, "highest": 1}, False, True),
    ],
)
def test_grades_that_look_like_another_scale_are_questioned_as_imported_ratings_are(
    values: list[float], scale: dict[str, float] | None, refused: bool, warned: bool, tmp_path: Path
) -> None:
    names = [f"{number:032x}" for number in range(1, len(values) + 1)]
    rows = [{"id": name, "grade": value} for name, value in zip(names, values, strict=True)]
    ids = pack(pa.array(names), where="test")
    if refused:
        with pytest.raises(InputError) as error:
            read(tmp_path, *rows, ids=ids, scale=scale)
        assert "{lowest: 1, highest: 10}" in error.value.allowed
        return
    assert bool(read(tmp_path, *rows, ids=ids, scale=scale).warnings) == warned


SHEET = [
    row(0, None, why="random", weight=2.5),
    row(1, None, why="informative", weight=None),
    row(2, None, why="random", weight=3.5),
    row(3, None, why="informative", weight=None),
]


@pytest.mark.parametrize("known", ["weights", "why", "nothing"])
def test_grades_without_weights_get_them_from_the_sheet_beside_them(known: str, tmp_path: Path) -> None:
    own = written(tmp_path / "own.csv", [row(number, 6) for number in range(4)])
    rows = [{name: value for name, value in one.items() if known == "weights" or name != "weight"} for one in SHEET]
    paths = (own,) if known == "nothing" else (own, written(tmp_path / "sheet.jsonl", rows))
    grades = read_grades(GradesSettings(path=paths), IDS, lowest=4, highest=9, scratch=tmp_path)
    assert grades.graded == 4
    if known == "nothing":
        assert grades.chosen == {"drawn_at_random": 0, "chosen_otherwise": 0, "taken_as_drawn": 4}
        assert not grades.weighted
        return
    assert grades.chosen == {"drawn_at_random": 2, "chosen_otherwise": 2, "taken_as_drawn": 0}
    assert (grades.weighted, grades.equal, grades.empty) == (True, 0 if known == "weights" else 2, 4)
    expected = [2.5, 3.5] if known == "weights" else [len(IDS) / 2] * 2
    assert grades.weights[[0, 2]].tolist() == expected
    assert np.isnan(grades.weights[[1, 3]]).all()


def test_the_reason_in_the_grades_own_file_is_read_and_other_words_are_none(tmp_path: Path) -> None:
    grades = read(tmp_path, row(0, 6, why="Random"), row(1, 6, why="informative"), row(2, 6, why="looked odd"))
    assert grades.chosen == {"drawn_at_random": 1, "chosen_otherwise": 2, "taken_as_drawn": 0}
    only = read(tmp_path, row(0, 6, why="informative"))
    assert only.chosen == {"drawn_at_random": 0, "chosen_otherwise": 1, "taken_as_drawn": 0}
    assert only.weighted


OWN_SAMPLES = [conversation(f"Question {number}?", "Because.") for number in range(4)]


def own_pool(folder: Path, uids: list[Any]) -> tuple[Artifact, Keys]:
    metadata = [{} if uid is None else {"uid": uid} for uid in uids]
    pool = Artifact.open(make_pool(folder / "pool", OWN_SAMPLES, metadata=metadata), "pool")
    return pool, pack(pa.array([sample_id(messages) for messages in OWN_SAMPLES]), where="test")


def test_grades_by_ids_of_one_s_own_find_their_samples_and_a_sheet_beside_them_by_its_ids(tmp_path: Path) -> None:
    pool, ids = own_pool(tmp_path, [7, "b-2", None, "c"])
    own = written(
        tmp_path / "own.csv",
        [{"nr": nr, "grade": grade} for nr, grade in (("7", 1), ("b-2", 5), ("elsewhere", 3), ("c", None))],
    )
    sheet = written(tmp_path / "sheet.jsonl", [{"id": sample_id(OWN_SAMPLES[1]), "grade": None, "weight": 2.0}])
    settings = GradesSettings(path=(own, sheet), key="nr", field="uid", scale={"lowest": 1, "highest": 5})
    grades = read_grades(settings, ids, lowest=4, highest=9, scratch=tmp_path, pool=pool)
    assert grades.classes.tolist() == [0, 5, -1, -1]
    assert (grades.graded, grades.unknown, grades.empty) == (2, 1, 2)
    assert grades.weights[1] == 2.0
    assert len(grades.warnings) == 1  # of the grade that no sample has
    assert read_ids(own, tmp_path, settings, pool) == {sample_id(OWN_SAMPLES[number]) for number in (0, 1, 3)}
    assert read_ids(sheet, tmp_path, settings, pool) == {sample_id(OWN_SAMPLES[1])}
    assert check_files(settings, tmp_path) == 3


def test_own_ids_that_fit_no_sample_or_two_and_a_pool_without_them_are_refused(tmp_path: Path) -> None:
    pool, ids = own_pool(tmp_path, ["a", "b", "c", "d"])
    twice, _ = own_pool(tmp_path / "twice", ["a", "a", "b", "c"])
    path = written(tmp_path / "own.csv", [{"nr": "x-1", "grade": 5}])

    def read_own(pool: Artifact | None, field: str = "uid") -> Grades:
        settings = GradesSettings(path=path, key="nr", field=field)
        return read_grades(settings, ids, lowest=4, highest=9, scratch=tmp_path, pool=pool)

    with pytest.raises(InputError, match="'x-1'"):
        read_own(pool)
    with pytest.raises(InputError, match="'nr'"):
        read_own(pool, "nr")
    with pytest.raises(InputError, match="'a'"):
        read_own(twice)
    with pytest.raises(SettingsError, match="a field of the pool"):
        read_own(None)
    with pytest.raises(InputError, match="has no column 'other'"):
        check_files(GradesSettings(path=path, key="other"), tmp_path)


@pytest.mark.parametrize(
    "rows",
    [
        [{"id": NAMES[0], "score": 5}],
        [{"uid": "a", "grade": 5}],
        [{"id": "a-1", "grade": 5}],
        [{"id": NAMES[0], "grade": 11}],
        [{"id": name, "grade": 1 + number % 5} for number, name in enumerate(NAMES)],
        [{"id": NAMES[0], "grade": None}],
        [{"id": NAMES[0], "grade": 5}] * 2,
    ],
)
def test_files_that_no_run_could_use_are_found_without_a_pool(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    path = written(tmp_path / "grades.jsonl", rows)
    with pytest.raises(InputError) as caught:
        check_files(GradesSettings(path=path), tmp_path)
    if rows[0].get("uid") or rows[0].get("id") == "a-1":  # ids of one's own have a way
        assert "grades.key" in caught.value.action
    assert check_files(GradesSettings(path=written(tmp_path / "good.jsonl", [row(0, 5), row(1, None)])), tmp_path) == 1


@pytest.mark.parametrize("values", [{"column": "grade", "key": "uid"}, {"path": "g.csv", "field": "uid"}])
def test_own_ids_need_a_file_and_its_column(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="key"):
        parse(GradesSettings, values, where="settings")
