"""Shards: rated apart, merged to what one worker makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner

from tamis.cli import main
from tamis.core.artifacts import Artifact, Manifest
from tamis.core.errors import ArtifactError, InputError, SettingsError
from tamis.core.samples import sample_id
from tamis.core.settings import parse
from tamis.rating.merging import gather, merge_one
from tamis.rating.merging import run as merge
from tamis.rating.settings import MergeSettings, RatingSettings
from tamis.rating.shards import Shard, places
from tamis.rating.stage import run
from tests.artifacts import conversation, make_pool
from tests.llm_server import Reaction, Server, completion
from tests.paper_prompt import Scores, write

pytest.importorskip("openai")


def settings(server: Server, **own: Any) -> RatingSettings:
    backend = {"kind": "openai", "model": "m", "base_url": server.url, "api_key_env": None}
    return parse(RatingSettings, {"name": "mini", "backend": backend} | own, where="here")


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return make_pool(tmp_path / "pool", [conversation(f"What is {n}?", f"A number, {n}.") for n in range(60)])


@pytest.fixture
def shards(pool: Path, tmp_path: Path) -> list[Path]:
    """The three shards of a rated pool."""
    found = [tmp_path / f"shard{number}" for number in (1, 2, 3)]
    with Server() as server:
        for number, out in enumerate(found, 1):
            run(settings(server, shard=f"{number}/3", store=str(tmp_path / "store")), pool=pool, out=out)
        assert len(server.asked) == 60
    return found


def test_ids_are_spread_evenly_and_each_has_one_shard() -> None:
    ids = pa.array([sample_id(conversation(f"{number}", "a")) for number in range(8000)])
    counts = [int((places(ids, 8) == shard).sum()) for shard in range(8)]
    assert sum(counts) == 8000
    assert min(counts) > 900


def test_merged_shards_are_what_one_worker_makes(pool: Path, shards: list[Path], tmp_path: Path) -> None:
    merged = merge(MergeSettings(), pool=pool, ratings=[shards[2], shards[0], shards[1]], out=tmp_path / "merged")
    with Server() as server:
        whole = run(settings(server, store=str(tmp_path / "another")), pool=pool, out=tmp_path / "whole")
    assert merged.content_hash == whole.content_hash
    assert (merged.name, merged.rows, merged.facts["ok"], merged.facts["shards"]) == ("mini", 60, 60, 3)
    assert merged.facts["asked"] == 60
    assert {key: merged.facts[key] for key in ("prompt", "backend", "overall_histogram")} == {
        key: whole.facts[key] for key in ("prompt", "backend", "overall_histogram")
    }


def test_out_of_the_shards_of_several_raters_each_gets_its_own(pool: Path, shards: list[Path], tmp_path: Path) -> None:
    others = [tmp_path / f"other{number}" for number in (1, 2)]
    with Server(lambda asked: Reaction(completion(write(Scores(1, 2, 3, 4))))) as server:
        other, whole = settings(server, name="other"), settings(server, name="whole")
        for number, out in enumerate(others, 1):
            run(other.model_copy(update={"shard": f"{number}/2"}), pool=pool, out=out)
        made = run(whole, pool=pool, out=tmp_path / "whole")
    parts = tmp_path / "parts"
    gather(MergeSettings(), ratings=[others[1], shards[2], tmp_path / "whole", *shards[:2], others[0]], out=parts)

    def merged(name: str) -> Manifest:
        rater = other.model_copy(update={"name": name})
        return merge_one(rater, pool=pool, parts=parts, out=tmp_path / f"merged-{name}")

    mini = merge(MergeSettings(), pool=pool, ratings=shards, out=tmp_path / "mini")
    assert [merged(name).facts.get("shards") for name in ("mini", "other", "whole")] == [3, 2, None]
    assert Artifact.open(tmp_path / "merged-mini").manifest.content_hash == mini.content_hash
    assert Artifact.open(tmp_path / "merged-whole").manifest == made
    scores = Artifact.open(tmp_path / "merged-other").table()["overall"].to_pylist()
    assert scores == [4] * 60
    with pytest.raises(InputError, match="'nobody'"):
        merged("nobody")
    with pytest.raises(ArtifactError, match="is a pool"):
        gather(MergeSettings(), ratings=[pool], out=tmp_path / "nothing")


def test_a_merge_refuses_what_is_not_whole(pool: Path, shards: list[Path], tmp_path: Path) -> None:
    def refused(ratings: list[Path], pool: Path = pool) -> str:
        with pytest.raises(InputError) as error:
            merge(MergeSettings(), pool=pool, ratings=ratings, out=tmp_path / "merged")
        assert not (tmp_path / "merged").exists()
        return str(error.value)

    assert "2 of 3 shards are missing: 1/3, 3/3" in refused([shards[1]])
    assert "4 shards are given, but there are 3" in refused([*shards, shards[0]])
    with Server() as server:
        run(settings(server, shard="1/2"), pool=pool, out=tmp_path / "half")
        run(settings(server, shard="3/3", temperature=1.0), pool=pool, out=tmp_path / "other")
    assert "differ in their number" in refused([*shards, tmp_path / "half"])
    assert "differ in rater, prompt, sampling" in refused([*shards[:2], tmp_path / "other"])
    other = make_pool(tmp_path / "other-pool", [conversation("a", "b")])
    assert "shard 1/3" in refused(shards, other)


def test_a_shard_is_no_ratings_for_other_stages(shards: list[Path]) -> None:
    with pytest.raises(ArtifactError, match="ratings_part"):
        Artifact.open(shards[0], "ratings")


def test_a_shard_has_its_share_of_the_money(pool: Path, tmp_path: Path) -> None:
    with Server(lambda asked: Reaction(completion(), delay=0.01)) as server:
        mine = settings(
            server, shard="1/2", price={"input": 1000, "output": 1000}, max_cost=2.6, store=str(tmp_path / "store"),
        )  # fmt: skip
        with pytest.raises(Exception, match=r"1\.3 \(max_cost, "):
            run(mine, pool=pool, out=tmp_path / "out")
    assert len(server.asked) <= 10


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1/0", "3", "a/3", "job/3"])
def test_a_shard_that_is_not_there_is_refused(shard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOB_COMPLETION_INDEX", raising=False)
    values = {"name": "mini", "backend": {"kind": "openai", "model": "m"}, "shard": shard}
    with pytest.raises(SettingsError, match="shard"):
        parse(RatingSettings, values, where="here")


def test_a_pod_of_an_indexed_job_knows_its_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "2")
    values = {"name": "mini", "backend": {"kind": "openai", "model": "m"}, "shard": "job/8"}
    assert parse(RatingSettings, values, where="here").shard == "3/8"
    assert Shard.read("3/8") == Shard(3, 8)


def test_the_command_rates_a_shard_merges_and_plans(pool: Path, tmp_path: Path) -> None:
    def called(*arguments: object) -> str:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    with Server() as server:
        common = ["rate", "--pool", pool, "--set", "name=mini", "--set", "backend.kind=openai"]
        common += ["--set", "backend.model=m", "--set", f"backend.base_url={server.url}"]
        common += ["--set", "backend.api_key_env=null", "--set", f"store={tmp_path / 'store'}"]
        assert "to be rated:                    60" in called(*common, "--dry-run")
        assert not server.asked
        for number in (1, 2):
            called(*common, "--shard", f"{number}/2", "--out", tmp_path / f"{number}")
    said = called(
        "merge-ratings", "--pool", pool, "--ratings", tmp_path / "1", "--ratings", tmp_path / "2",
        "--out", tmp_path / "merged",
    )  # fmt: skip
    assert "ratings: 60 rows" in said
    manifest: Manifest = Artifact.open(tmp_path / "merged", "ratings").manifest
    assert manifest.facts["ok"] == 60
