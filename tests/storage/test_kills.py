"""SIGKILL at random moments, four shards at once: nothing is lost, and what was durable is never asked for again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.artifacts import make_pool
from tests.killing import RUNS, run_with_kills, samples_for_kills

pytest.importorskip("openai")
pytestmark = [pytest.mark.timeout(240 * (RUNS + 1))]


def test_kills_lose_nothing_and_repeat_nothing_durable(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", samples_for_kills(160))
    seen = run_with_kills(pool, str(tmp_path / "store"), tmp_path, kills=2, seed=3)
    assert not seen.late
    assert seen.requests == 160 + seen.repeated


@pytest.mark.skipif(not RUNS, reason="TAMIS_TEST_KILLS does not say how many runs; each takes most of a minute")
@pytest.mark.parametrize("place", ["folder", "s3", "azure"])
def test_so_do_many_runs_with_many_kills(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    pool = make_pool(tmp_path / "pool", samples_for_kills(640))
    base = request.getfixturevalue(place) if place != "folder" else str(tmp_path / "store")
    for number in range(RUNS):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        seen = run_with_kills(pool, f"{base}/{number}", folder, kills=6, seed=number)
        print(f"{place} {number}: {seen}", flush=True)
        assert seen.kills >= 1
        assert not seen.late
        assert seen.requests == 640 + seen.repeated
