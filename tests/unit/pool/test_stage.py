"""The pool stage: duplicates, limits, draws, determinism, reuse, memory, facts."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tamis.core.artifacts import Artifact
from tamis.core.errors import ArtifactError, StorageError
from tamis.core.samples import sample_id
from tamis.core.tables import POOL
from tamis.pool.stage import run
from tests.conftest import shared_data
from tests.unit.pool.making import Row, make, pairs, settings_of, turns, write_csv, write_jsonl, write_parquet


def questions(rows: list[Row]) -> list[int]:
    """The numbers of the questions that `pairs` made."""
    return [int(turns(row)[0][1].removeprefix("Question ").removesuffix("?")) for row in rows]


def test_the_artifact_has_the_schema_and_the_facts(tmp_path: Path) -> None:
    messages = [{"role": role, "content": "word"} for role in ("user", "assistant") * 2]
    write_jsonl(tmp_path / "a.jsonl", [{"messages": messages}])
    write_csv(tmp_path / "b.csv", [*pairs(2), {"prompt": "", "completion": "x"}, pairs(1)[0]])
    manifest, rows = make(
        tmp_path / "pool",
        {"name": "a", "path": str(tmp_path / "a.jsonl")},
        {"name": "b", "path": str(tmp_path / "b.csv")},
        max_reject_share=0.5,
    )
    artifact = Artifact.open(tmp_path / "pool", "pool")
    artifact.verify()
    assert artifact.table().schema == POOL
    assert [row["source"] for row in rows] == ["a", "b", "b"]
    assert all(row["id"] == sample_id(row["messages"]) for row in rows)
    assert manifest.facts["sources"]["b"] == {
        "read": 4,
        "kept": 2,
        "rejected": 1,
        "duplicates": 1,
        "left_out": 0,
        "not_drawn": 0,
        "mean_turns": 2.0,
        "mean_characters": 20.0,
        "schema": "prompt_completion",
        "files": 1,
    }
    assert manifest.facts["read"] == 5
    assert manifest.facts["mean_turns"] == pytest.approx(8 / 3, abs=1e-3)
    assert manifest.facts["mean_characters"] == pytest.approx((16 + 20 + 20) / 3, abs=0.1)


def test_of_equal_samples_the_first_stays_and_the_others_are_counted(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [*pairs(3), *pairs(2)])
    write_jsonl(tmp_path / "b.jsonl", pairs(4, 1))
    sources = [{"path": str(tmp_path / name)} for name in ("a.jsonl", "b.jsonl")]
    manifest, rows = make(tmp_path / "pool", *sources)
    assert questions(rows) == [0, 1, 2, 3, 4]
    assert [row["source"] for row in rows] == ["s0"] * 3 + ["s1"] * 2
    assert [facts["duplicates"] for facts in manifest.facts["sources"].values()] == [2, 2]
    assert manifest.facts["duplicates"] == 4


def test_equal_conversations_in_other_schemas_are_duplicates(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"prompt": "Q\n\nx", "completion": "A"}])
    write_jsonl(tmp_path / "b.jsonl", [{"instruction": "Q", "input": "x", "output": "A"}])
    manifest, _ = make(tmp_path / "pool", *({"path": str(tmp_path / name)} for name in ("a.jsonl", "b.jsonl")))
    assert (manifest.rows, manifest.facts["duplicates"]) == (1, 1)


def test_a_limit_takes_the_first_samples_that_can_be_used(tmp_path: Path) -> None:
    bad: Row = {"prompt": "", "completion": ""}
    path = write_jsonl(tmp_path / "a.jsonl", [*pairs(2), bad, *pairs(1), *pairs(9, 2), bad])
    manifest, rows = make(tmp_path / "pool", {"path": str(path), "limit": 4}, max_reject_share=0.5)
    assert questions(rows) == [0, 1, 2, 3]
    facts = manifest.facts
    assert (facts["read"], facts["rejected"], facts["duplicates"]) == (6, 1, 1)  # rows after the limit are not read


def test_a_limit_larger_than_the_source_takes_all(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", pairs(5))
    for seed in ({}, {"seed": 3}):
        _, rows = make(tmp_path / f"pool{len(seed)}", {"path": str(path), "limit": 9} | seed)
        assert questions(rows) == [0, 1, 2, 3, 4]


def test_rows_beyond_the_limit_do_not_hide_those_of_later_sources(tmp_path: Path) -> None:
    path = str(write_jsonl(tmp_path / "a.jsonl", pairs(50)))
    for seed in ({}, {"seed": 1}):
        manifest, rows = make(tmp_path / f"pool{len(seed)}", {"path": path, "limit": 5} | seed, {"path": path})
        assert sorted(questions(rows)) == list(range(50))
        assert manifest.facts["sources"]["s1"]["duplicates"] == 5


def test_a_draw_is_exact_ordered_and_depends_on_the_seed_alone(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [*pairs(500), *pairs(100), {"prompt": "", "completion": ""}])
    source: Row = {"path": str(path), "limit": 50}
    manifest, rows = make(tmp_path / "one", source | {"seed": 1})
    drawn = questions(rows)
    assert len(drawn) == len(set(drawn)) == 50
    assert drawn == sorted(drawn)
    assert drawn != list(range(50))
    facts = manifest.facts
    assert (facts["read"], facts["rejected"], facts["duplicates"], facts["not_drawn"]) == (601, 1, 100, 450)
    assert questions(make(tmp_path / "again", source | {"seed": 1})[1]) == drawn
    assert questions(make(tmp_path / "two", source | {"seed": 2})[1]) != drawn


def test_a_draw_does_not_depend_on_the_order_or_the_files(tmp_path: Path) -> None:
    one = write_jsonl(tmp_path / "a.jsonl", pairs(300))
    (tmp_path / "many").mkdir()
    for i in (2, 0, 1):
        write_parquet(tmp_path / "many" / f"{i}.parquet", pairs(100, i * 100)[::-1])
    chosen = [
        set(questions(make(tmp_path / f"pool{i}", {"path": str(path), "limit": 40, "seed": 7})[1]))
        for i, path in enumerate((one, tmp_path / "many"))
    ]
    assert chosen[0] == chosen[1]


def test_what_an_earlier_source_has_is_not_drawn_again(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", pairs(30))
    write_jsonl(tmp_path / "b.jsonl", pairs(60))
    manifest, rows = make(
        tmp_path / "pool",
        {"path": str(tmp_path / "a.jsonl")},
        {"path": str(tmp_path / "b.jsonl"), "limit": 10, "seed": 0},
    )
    assert len(set(questions(rows))) == 40
    assert manifest.facts["sources"]["s1"]["duplicates"] == 30


def mixed_sources(folder: Path) -> list[Row]:
    write_jsonl(folder / "a.jsonl.gz", [*pairs(400), {"prompt": "", "completion": ""}])
    write_parquet(folder / "b.parquet", [row | {"tags": ["x", "y"], "n": i} for i, row in enumerate(pairs(400, 300))])
    return [
        {"path": str(folder / "a.jsonl.gz")},
        {"path": str(folder / "b.parquet"), "keep": ["tags", "n"], "limit": 90, "seed": 5},
    ]


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    sources = mixed_sources(tmp_path)
    one, two = (make(tmp_path / name, *sources)[0] for name in ("one", "two"))
    assert one.content_hash == two.content_hash
    assert one.facts == two.facts
    for name in ("part-00000.parquet", "rejects.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    sources = mixed_sources(tmp_path)
    here, _ = make(tmp_path / "here", *sources)
    code = (
        "import json, sys; from tamis.pool.stage import run; from tamis.pool.settings import PoolSettings;"
        "run(PoolSettings.model_validate(json.loads(sys.argv[1])), out=sys.argv[2])"
    )
    settings = settings_of(*sources).model_dump_json(by_alias=True)
    subprocess.run([sys.executable, "-c", code, settings, str(tmp_path / "there")], check=True)
    assert Artifact.open(tmp_path / "there").manifest.content_hash == here.content_hash


def test_where_the_files_lie_does_not_change_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    here = make(tmp_path / "here", *mixed_sources(tmp_path))[0]
    there = make(tmp_path / "there", *mixed_sources(tmp_path / "x"))[0]
    assert here.content_hash == there.content_hash


def test_an_equal_run_is_reused_and_a_changed_file_is_noticed(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", pairs(3))
    first, _ = make(tmp_path / "pool", {"path": str(path)})
    assert make(tmp_path / "pool", {"path": str(path)})[0].execution == first.execution
    write_jsonl(path, pairs(4))
    with pytest.raises(ArtifactError, match="made from other"):
        make(tmp_path / "pool", {"path": str(path)})
    assert make(tmp_path / "other", {"path": str(path)})[0].key != first.key


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", pairs(30))
    make(tmp_path / "pool", {"path": str(tmp_path / "a.jsonl"), "limit": 3, "seed": 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "pool"]
    assert sorted(path.name for path in (tmp_path / "pool").iterdir()) == [
        "manifest.json",
        "part-00000.parquet",
        "rejects.parquet",
    ]


@pytest.mark.parametrize("write", [write_jsonl, write_csv, write_parquet])
@pytest.mark.parametrize("draw", [{}, {"limit": 500, "seed": 1}])
def test_memory_does_not_grow_with_the_source(tmp_path: Path, write: Any, draw: Row) -> None:
    # 60 MB of text; a block ends after 16 million characters.
    suffix = write.__name__.removeprefix("write_")
    path = write(tmp_path / f"a.{suffix}", [row | {"completion": f"{i:010000d}"} for i, row in enumerate(pairs(6000))])
    settings = settings_of({"path": str(path)} | draw)
    tracemalloc.start()
    try:
        manifest = run(settings, out=tmp_path / "pool")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert manifest.facts["read"] == 6000
    assert peak < 45e6


def test_a_file_that_may_not_be_read_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", pairs(3))
    opened = Path.open

    def refuse(self: Path, *args: Any, **options: Any) -> Any:
        if self == path:  # the tests may run as root, whom no file mode stops
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StorageError, match=r"reading .*a\.jsonl: permission denied"):
        make(tmp_path / "pool", {"path": str(path)})


def test_the_papers_alpaca_becomes_a_pool(tmp_path: Path) -> None:
    path = shared_data("rated", "alpaca_52002.parquet")
    manifest, _ = make(tmp_path / "pool", {"path": str(path), "keep": ["gpt_4o_mini"]})
    assert manifest.rows == 51_974
    assert manifest.facts["reject_reasons"] == {"empty message": 28}
    shutil.rmtree(tmp_path / "pool")
