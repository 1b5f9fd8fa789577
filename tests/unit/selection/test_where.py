"""Conditions on signals, and a strategy that ranks by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError, SettingsError
from tamis.core.settings import parse
from tamis.core.steps import Step
from tamis.core.tables import PartsWriter
from tamis.selection.settings import SelectionSettings
from tamis.selection.signals import column_of
from tamis.selection.stage import run
from tests import artifacts
from tests.artifacts import NoSettings, conversation

N = 40


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return artifacts.make_pool(tmp_path / "pool", [conversation(f"q{i}", f"a{i}") for i in range(N)])


def signals_of(folder: Path, pool: Path, **columns: pa.Array) -> Path:
    ids = Artifact.open(pool, "pool").table(["id"])["id"].combine_chunks()
    length = min(map(len, columns.values()))
    table = pa.table({"id": ids[:length], **columns})

    def write(step: Step[NoSettings]) -> None:
        with PartsWriter(step.out, table.schema) as parts:
            parts.write(table)
        step.rows = parts.rows
        step.facts["columns"] = {name: {} for name in columns}

    artifacts.make("signals", folder / "signals", write)
    return folder / "signals"


def settings_of(**values: Any) -> SelectionSettings:
    return parse(SelectionSettings, {"name": "s", "strategy": "random", "size": 5} | values, where="test")


@pytest.fixture
def signals(tmp_path: Path, pool: Path) -> Path:
    return signals_of(
        tmp_path,
        pool,
        language=pa.array([("en", "de", None, "fr")[i % 4] for i in range(N)]),
        loop_share=pa.array([i / N for i in range(N)], pa.float32()),
        refusal=pa.array([i % 2 == 0 for i in range(N)]),
    )


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"language": "en"}, [*range(0, N, 4)]),
        ({"language": ["en", "de"], "refusal": False}, [*range(1, N, 4)]),
        ({"loop_share": {"<": 0.25}, "refusal": True}, [*range(0, 10, 2)]),
        ({"language": {"not": "en"}, "loop_share": {">=": 0.5, "<": 0.7}}, [i for i in range(20, 28) if i % 4]),
    ],
)
def test_only_samples_that_meet_all_conditions_are_picked(
    where: dict[str, Any], expected: list[int], pool: Path, signals: Path, tmp_path: Path
) -> None:
    settings = settings_of(where=where, size=len(expected))
    manifest = run(settings, pool=pool, signals=signals, out=tmp_path / "out")
    table = Artifact.open(tmp_path / "out", "selection")
    import pyarrow.parquet as pq

    ids = Artifact.open(pool, "pool").table(["id"])["id"].to_pylist()
    chosen = pq.read_table(table.path("selection.parquet"), columns=["id"])["id"].to_pylist()
    assert sorted(map(ids.index, chosen)) == expected
    assert manifest.facts["not_eligible"] == {"conditions not met": N - len(expected)}


def test_too_few_samples_meet_the_conditions(pool: Path, signals: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        run(settings_of(where={"language": "en"}, size=11), pool=pool, signals=signals, out=tmp_path / "out")
    assert "10" in str(caught.value)


def test_samples_without_signals_are_not_picked(pool: Path, tmp_path: Path) -> None:
    signals = signals_of(tmp_path, pool, turns=pa.array([1] * 30))
    manifest = run(settings_of(where={"turns": 1}), pool=pool, signals=signals, out=tmp_path / "out")
    assert manifest.facts["not_eligible"] == {"not in the signals": 10}


def test_a_signal_that_does_not_exist_is_an_error(pool: Path, signals: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="loop_share"):
        run(settings_of(where={"loops": 0}), pool=pool, signals=signals, out=tmp_path / "out")


def test_conditions_without_signals_and_wrong_conditions_are_refused(pool: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--signals"):
        run(settings_of(where={"language": "en"}), pool=pool, out=tmp_path / "out")
    with pytest.raises(SettingsError):
        settings_of(where={"language": {"near": "en"}})


def test_signals_that_are_not_needed_do_not_change_a_subset(pool: Path, signals: Path, tmp_path: Path) -> None:
    assert "where" not in settings_of().model_dump()
    plain = run(settings_of(), pool=pool, out=tmp_path / "plain")
    given = run(settings_of(), pool=pool, signals=signals, out=tmp_path / "given")
    assert plain.key == given.key


def test_tokens_are_a_column_for_strategies(pool: Path, tmp_path: Path) -> None:
    from tamis.selection.reading import read_pool

    signals = signals_of(tmp_path, pool, tokens=pa.array([*range(29), None], pa.int32()))
    candidates = read_pool(Artifact.open(pool, "pool"))
    values, absent = column_of("tokens", Artifact.open(signals, "signals"), candidates.ids)
    assert values.tolist() == [*range(29), -1, *[-1] * 10]
    assert absent.tolist() == [False] * 30 + [True] * 10
