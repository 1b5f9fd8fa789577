"""A part of the pool: which samples are rated, that parts grow, and what becomes of the others."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tamis.cli import main
from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError, SettingsError, StorageError
from tamis.core.samples import Message
from tamis.core.settings import parse
from tamis.llm.budget import FailuresError
from tamis.rating.drawing import Drawn, draw
from tamis.rating.merging import run as merge
from tamis.rating.settings import MergeSettings, RatingSettings
from tamis.rating.stage import plan, run
from tests.artifacts import conversation, make_embeddings, make_pool
from tests.llm_server import GOOD, Reaction, Server, completion

SOURCES = {"large": 170, "middle": 25, "tiny": 3, "one": 1}
N = sum(SOURCES.values())


def settings(**own: Any) -> RatingSettings:
    backend = {"kind": "openai", "model": "m", "api_key_env": None} | own.pop("backend", {})
    return parse(RatingSettings, {"name": "r", "backend": backend} | own, where="here")


def samples_of(sources: dict[str, int], start: int = 0) -> tuple[list[list[Message]], list[str]]:
    """Samples of all sources, mixed."""
    rows = [(f"{source}: what is {n}?", source) for source, size in sources.items() for n in range(start, start + size)]
    np.random.default_rng(0).shuffle(rows)
    return [conversation(str(text), "A number.") for text, _ in rows], [str(source) for _, source in rows]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples, sources = samples_of(SOURCES)
    return make_pool(tmp_path_factory.mktemp("pools") / "pool", samples, source=sources)


@pytest.fixture(scope="module")
def embeddings(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clusters, in an order that is not the pool's."""
    found = ids_of(pool)[::-1]
    rng = np.random.default_rng(1)
    vectors = np.eye(8)[np.arange(N) % 8] + 0.02 * rng.normal(size=(N, 8))
    return make_embeddings(tmp_path_factory.mktemp("embeddings") / "e", found, vectors)


def ids_of(pool: Path) -> list[str]:
    return Artifact.open(pool).table(["id"])["id"].to_pylist()


def drawn(pool: Path, embeddings: Path | None = None, **own: Any) -> Drawn:
    found = draw(settings(**own), Artifact.open(pool), None if embeddings is None else Artifact.open(embeddings))
    assert found is not None
    return found


def chosen(pool: Path, embeddings: Path | None = None, **own: Any) -> set[str]:
    mask = drawn(pool, embeddings, **own).mask
    return {sample for sample, taken in zip(ids_of(pool), mask, strict=True) if taken}


def write_ids(path: Path, ids: Sequence[str]) -> str:
    lines = ids if path.suffix == ".txt" else [json.dumps({"id": sample}) for sample in ids]
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def rows(ratings: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in Artifact.open(ratings).table().to_pylist()}


@pytest.mark.parametrize("spread", [False, True])
def test_a_larger_part_holds_every_smaller_one(pool: Path, embeddings: Path, spread: bool) -> None:
    smaller: set[str] = set()
    for part in (2, 3, 5, 0.1, 22, 0.15, 0.2, 43, 60, 0.5, 0.9, N - 1, N):
        larger = chosen(pool, embeddings if spread else None, sample=part)
        assert smaller <= larger
        smaller = larger
    assert smaller == set(ids_of(pool))


@pytest.mark.parametrize("spread", [False, True])
def test_each_source_gives_the_share_rounded_up(pool: Path, embeddings: Path, spread: bool) -> None:
    found = drawn(pool, embeddings if spread else None, sample=0.1)
    assert found.sources == {"large": (17, 170), "middle": (3, 25), "tiny": (1, 3), "one": (1, 1)}
    number = drawn(pool, embeddings if spread else None, sample=22)
    assert np.array_equal(number.mask, found.mask)
    assert found.by == ("source and embedding" if spread else "source")


def test_a_part_smaller_than_the_number_of_sources_takes_the_largest(pool: Path) -> None:
    given = {source: asked for source, (asked, _) in drawn(pool, sample=2).sources.items()}
    assert given == {"large": 1, "middle": 1, "tiny": 0, "one": 0}


@given(sizes=st.lists(st.integers(1, 200), min_size=1, max_size=8), data=st.data())
def test_no_source_is_a_sample_or_more_above_the_common_share(sizes: list[int], data: st.DataObject) -> None:
    """Adams' rule, against the definition: the counts are ceil(n * share) of one share, but for ties at the last."""
    number = data.draw(st.integers(2, max(2, sum(sizes))))
    codes = np.repeat(np.arange(len(sizes)), sizes)
    places = np.concatenate([np.arange(size) / size for size in sizes])
    first = np.lexsort((codes, places))[:number]
    share = places[first].max()
    counts = np.bincount(codes[first], minlength=len(sizes))
    for size, count in zip(sizes, counts, strict=True):
        below = int((np.arange(size) / size < share).sum())
        assert below <= count <= below + 1


@pytest.mark.parametrize(
    ("part", "size", "number"),
    [(0.1, 30, 3), (0.1, 31, 4), (0.07, 100, 7), (1e-9, 5, 1), (0.999, 10, 10), (5, 7, 5), (9, 7, 7)],
)
def test_a_share_is_rounded_up_and_a_number_is_kept(part: float, size: int, number: int, tmp_path: Path) -> None:
    assert settings(sample=part).asked(size) == number
    pool = make_pool(tmp_path / "pool", [conversation(f"{i}", "a") for i in range(size)])
    assert drawn(pool, sample=part).mask.sum() == number


def test_without_a_part_all_are_rated(pool: Path) -> None:
    assert settings().asked(7) == 7
    assert draw(settings(), Artifact.open(pool)) is None


def test_the_draw_depends_on_seed_and_ids_alone(embeddings: Path, pool: Path, tmp_path: Path) -> None:
    samples, sources = samples_of(SOURCES)
    turned = make_pool(tmp_path / "turned", samples[::-1], source=sources[::-1])
    for spread in (None, embeddings):
        first = chosen(pool, spread, sample=0.3)
        assert chosen(turned, spread, sample=0.3) == first
        assert chosen(pool, spread, sample=0.3, seed=5, temperature=1) == first, "the seed is of the rater's draws"
        assert chosen(pool, spread, sample=0.3, sample_seed=5) != first


def test_when_the_pool_grows_the_part_takes_few_other_old_samples(pool: Path, tmp_path: Path) -> None:
    old, sources = samples_of(SOURCES)
    new, more = samples_of({"large": 400, "middle": 25}, start=1_000)
    grown = make_pool(tmp_path / "grown", [*old, *new], source=[*sources, *more])
    before, now = chosen(pool, sample=0.2), chosen(grown, sample=0.2) & set(ids_of(pool))
    assert len(now - before) <= 0.1 * len(now)


def test_embeddings_spread_a_part_over_the_neighbourhoods(tmp_path: Path) -> None:
    """Of eight equal neighbourhoods eight samples drawn by chance alone meet 5.3 on average."""
    n, seeds = 800, range(6)
    pool = make_pool(tmp_path / "pool", [conversation(f"{i}", "a") for i in range(n)])
    where = np.arange(n) % 8
    vectors = np.eye(8)[where] + 0.01 * np.random.default_rng(0).normal(size=(n, 8))
    embeddings = make_embeddings(tmp_path / "e", ids_of(pool), vectors)

    def neighbourhoods(spread: Path | None) -> float:
        return float(np.mean([len(set(where[drawn(pool, spread, sample=8, sample_seed=s).mask])) for s in seeds]))

    assert neighbourhoods(embeddings) > 6.5 > neighbourhoods(None)


def test_equal_vectors_are_drawn_by_chance(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", [conversation(f"{i}", "a") for i in range(20)])
    embeddings = make_embeddings(tmp_path / "e", ids_of(pool), np.ones((20, 4)))
    assert len(chosen(pool, embeddings, sample=5)) == 5


def test_embeddings_of_another_pool_are_refused(pool: Path, tmp_path: Path) -> None:
    embeddings = make_embeddings(tmp_path / "e", ids_of(pool)[1:], np.ones((N - 1, 4)))
    with pytest.raises(InputError, match=rf"\b1\b.*\b{N}\b"):
        chosen(pool, embeddings, sample=0.5)


def test_embeddings_without_a_sample_are_refused(pool: Path, embeddings: Path, tmp_path: Path) -> None:
    for call in (lambda: run(settings(), pool=pool, embeddings=embeddings, out=tmp_path / "out"),
                 lambda: plan(settings(), pool=pool, embeddings=embeddings)):  # fmt: skip
        with pytest.raises(SettingsError, match="`sample`"):
            call()


@pytest.mark.parametrize("part", [0, -0.1, 1, 1.0, 2.5, True, "0.1", "10%", float("nan"), float("inf"), [1]])
def test_an_odd_part_is_refused_with_what_is_allowed(part: Any) -> None:
    with pytest.raises(SettingsError, match=r"\n  sample: "):
        settings(sample=part)


def test_whole_numbers_come_back_from_a_pipeline(tmp_path: Path) -> None:
    assert settings(sample=500.0) == settings(sample=500)
    given = settings(sample=0.25, sample_seed=3)
    assert parse(RatingSettings, given.model_dump(mode="json"), where="there") == given


def test_settings_without_effect_are_refused() -> None:
    for own in ({"sample": 0.5}, {"sample_seed": 1, "sample": 0.5}):
        with pytest.raises(SettingsError, match=r"'sample(_seed)?'"):
            parse(RatingSettings, {"name": "r", "backend": {"kind": "import", "path": "p", "by": "id"}} | own, where="")
    with pytest.raises(SettingsError, match="'sample_seed'"):
        settings(sample_seed=1)
    with pytest.raises(SettingsError, match="'also'"):
        settings(also="more.txt")
    backend = {"kind": "import", "path": "p", "by": "id"}
    with pytest.raises(SettingsError, match="'also'"):
        parse(RatingSettings, {"name": "r", "backend": backend, "also": "more.txt"}, where="")


@pytest.mark.parametrize("name", ["more.txt", "more.jsonl"])
def test_samples_that_files_name_are_rated_too(pool: Path, tmp_path: Path, name: str) -> None:
    part, others = chosen(pool, sample=0.1), sorted(set(ids_of(pool)) - chosen(pool, sample=0.1))
    named = [*others[:5], *sorted(part)[:2], f"{7:032x}"]
    found = drawn(pool, sample=0.1, also=write_ids(tmp_path / name, named))
    assert chosen(pool, sample=0.1, also=str(tmp_path / name)) == part | set(others[:5])
    assert found.also is not None
    assert (found.also.ids, found.also.unknown, found.also.added) == (8, 1, 5)
    assert sum(asked for asked, _ in found.sources.values()) == 27
    assert re.findall(r"\d+", str(found)) == ["27", f"{N}", "5", "1", "8", f"{N - 27}"]


def test_several_files_count_a_sample_once_and_their_order_does_not_matter(pool: Path, tmp_path: Path) -> None:
    named = ids_of(pool)[:6]
    files = [write_ids(tmp_path / f"{i}.txt", some) for i, some in enumerate((named[:4], named[2:], []))]
    found, turned = (drawn(pool, sample=0.1, also=given) for given in (files, files[::-1]))
    assert found.also == turned.also
    assert found.also is not None
    assert found.also.ids == 6


def test_files_that_name_no_sample_of_the_pool_are_refused(pool: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^also: .*\b2\b.*more\.txt"):
        drawn(pool, sample=0.1, also=write_ids(tmp_path / "more.txt", [f"{1:032x}", f"{2:032x}"]))
    with pytest.raises(InputError, match=r"also: .*odd\.txt: entry 1 is 'row 3'"):
        drawn(pool, sample=0.1, also=write_ids(tmp_path / "odd.txt", ["row 3"]))
    empty = drawn(pool, sample=0.1, also=write_ids(tmp_path / "empty.txt", []))
    assert empty.also is not None
    assert (empty.also.ids, empty.also.added) == (0, 0)


pytest.importorskip("openai")


def asked_at(server: Server, **own: Any) -> RatingSettings:
    return settings(backend={"base_url": server.url}, **own)


def test_the_rest_has_rows_that_say_so_and_are_no_failures(pool: Path, tmp_path: Path) -> None:
    with Server() as server:
        mine = asked_at(server, sample=0.1, max_failure_share=0)
        manifest = run(mine, pool=pool, out=tmp_path / "out")
        assert len(server.asked) == 22
    table = rows(tmp_path / "out")
    assert list(table) == ids_of(pool)
    assert {sample for sample, row in table.items() if row["status"] == "ok"} == chosen(pool, sample=0.1)
    assert Counter(row["status"] for row in table.values()) == {"ok": 22, "not_asked": N - 22}
    rest = [row for row in table.values() if row["status"] == "not_asked"]
    assert all(row["overall"] is None and row["error"] is None and row["attempts"] == 0 for row in rest)
    facts = manifest.facts
    assert (facts["ok"], facts["not_asked"], facts["asked"], facts["errors"]) == (22, N - 22, 22, {})
    assert facts["sample"] == {
        "asked": 22, "of": N, "by": "source",
        "sources": {name: {"asked": asked, "of": of} for name, (asked, of) in drawn(pool, sample=0.1).sources.items()},
    }  # fmt: skip


def test_a_step_is_made_anew_when_a_file_names_others_and_pays_for_these_only(pool: Path, tmp_path: Path) -> None:
    others = sorted(set(ids_of(pool)) - chosen(pool, sample=0.1))
    file = write_ids(tmp_path / "more.txt", others[:5])
    with Server() as server:
        mine = asked_at(server, sample=0.1, also=file, store=str(tmp_path / "store"))
        facts = run(mine, pool=pool, out=tmp_path / "one").facts
        assert (facts["asked"], facts["ok"], facts["not_asked"]) == (27, 27, N - 27)
        assert (facts["sample"]["asked"], facts["sample"]["also"]["added"]) == (27, 5)
        assert plan(mine, pool=pool).asked == 27
        write_ids(tmp_path / "more.txt", others[:8])
        facts = run(mine, pool=pool, out=tmp_path / "two").facts
        assert (facts["asked"], facts["reused"]) == (3, 27)
        assert len(server.asked) == 30
    rated = {sample for sample, row in rows(tmp_path / "two").items() if row["status"] == "ok"}
    assert rated == chosen(pool, sample=0.1) | set(others[:8])


def test_a_file_that_is_not_there_is_told_before_anybody_is_asked(pool: Path, tmp_path: Path) -> None:
    with Server() as server:
        with pytest.raises(StorageError, match=r"more\.txt does not exist"):
            run(asked_at(server, sample=0.1, also=str(tmp_path / "more.txt")), pool=pool, out=tmp_path / "out")
        assert len(server.asked) == 0


def test_failures_are_a_share_of_those_asked(pool: Path, tmp_path: Path) -> None:
    def one_in_ten(asked: Any) -> Reaction:
        return Reaction(completion("no" if asked.number % 10 == 0 else GOOD))

    with Server(one_in_ten) as server:
        mine = asked_at(server, sample=20, max_failure_share=0.05, max_attempts=1)
        with pytest.raises(FailuresError, match="2 of 20"):
            run(mine, pool=pool, out=tmp_path / "out")


def test_a_larger_part_pays_for_what_is_new_only(pool: Path, tmp_path: Path) -> None:
    with Server() as server:
        for part, asked, reused in ((20, 20, 0), (40, 20, 20), (None, N - 40, 40)):
            mine = asked_at(server, sample=part, store=str(tmp_path / "store"))
            facts = run(mine, pool=pool, out=tmp_path / str(part)).facts
            assert (facts["asked"], facts["reused"]) == (asked, reused)
        assert len(server.asked) == N
        again = asked_at(server, sample=20, store=str(tmp_path / "store"), max_attempts=4)
        run(again, pool=pool, out=tmp_path / "again")
        assert len(server.asked) == N
    assert rows(tmp_path / "again") == rows(tmp_path / "20"), "what the store has beside does not matter"


@pytest.mark.parametrize("spread", [False, True])
def test_shards_of_a_part_make_what_one_worker_makes(
    pool: Path, embeddings: Path, tmp_path: Path, spread: bool
) -> None:
    given = {"pool": pool, "embeddings": embeddings if spread else None}
    with Server() as server:
        whole = run(asked_at(server, sample=30), **given, out=tmp_path / "whole")
        parts = [tmp_path / f"{number}" for number in (1, 2, 3)]
        for number, part in enumerate(parts, 1):
            run(asked_at(server, sample=30, shard=f"{number}/3", store=str(tmp_path / "shards")), **given, out=part)
        assert len(server.asked) == 60
        run(asked_at(server, sample=40, shard="3/3"), **given, out=tmp_path / "other")
    merged = merge(MergeSettings(), pool=pool, ratings=parts, out=tmp_path / "merged")
    assert merged.content_hash == whole.content_hash
    for fact in ("asked", "not_asked", "ok", "sample"):
        assert merged.facts[fact] == whole.facts[fact]
    with pytest.raises(InputError, match="sampling, sample or backend"):
        merge(MergeSettings(), pool=pool, ratings=[*parts[:2], tmp_path / "other"], out=tmp_path / "odd")


def test_shards_with_the_same_files_are_merged_and_with_other_ids_in_them_are_not(pool: Path, tmp_path: Path) -> None:
    file = write_ids(tmp_path / "more.txt", ids_of(pool)[:40])
    with Server() as server:
        whole = run(asked_at(server, sample=30, also=file), pool=pool, out=tmp_path / "whole")
        parts = [tmp_path / f"{number}" for number in (1, 2)]
        for number, part in enumerate(parts, 1):
            mine = asked_at(server, sample=30, also=file, shard=f"{number}/2", store=str(tmp_path / "shards"))
            run(mine, pool=pool, out=part)
        write_ids(tmp_path / "more.txt", ids_of(pool)[1:41])
        run(asked_at(server, sample=30, also=file, shard="2/2"), pool=pool, out=tmp_path / "other")
    merged = merge(MergeSettings(), pool=pool, ratings=parts, out=tmp_path / "merged")
    assert merged.content_hash == whole.content_hash
    for fact in ("asked", "not_asked", "ok", "sample"):
        assert merged.facts[fact] == whole.facts[fact]
    with pytest.raises(InputError, match="sampling, sample or backend"):
        merge(MergeSettings(), pool=pool, ratings=[parts[0], tmp_path / "other"], out=tmp_path / "odd")


def test_shards_of_parts_by_other_embeddings_are_not_merged(pool: Path, embeddings: Path, tmp_path: Path) -> None:
    with Server() as server:
        run(asked_at(server, sample=30, shard="1/2"), pool=pool, out=tmp_path / "1")
        run(asked_at(server, sample=30, shard="2/2"), pool=pool, embeddings=embeddings, out=tmp_path / "2")
    with pytest.raises(InputError, match="sampling, sample or backend"):
        merge(MergeSettings(), pool=pool, ratings=[tmp_path / "1", tmp_path / "2"], out=tmp_path / "merged")


def test_a_dry_run_says_what_the_part_saves(pool: Path, embeddings: Path, tmp_path: Path) -> None:
    price = {"input": 1000, "output": 1000}
    with Server() as server:
        whole = plan(asked_at(server, price=price), pool=pool)
        mine = asked_at(server, price=price, sample=20, store=str(tmp_path / "store"))
        part = plan(mine, pool=pool)
        assert (part.samples, part.asked, part.stored, part.spared) == (N, 20, 0, N - 20)
        assert whole.cost is not None
        assert part.cost == pytest.approx(whole.cost / 10, rel=0.05)
        said = str(part)
        assert " 20\n" in said
        assert f"the sample saves:              {N - 20}  ratings, about " in said
        saved = float(said.rpartition("a cost of ")[2])
        assert saved == pytest.approx(whole.cost - part.cost, rel=0.05)
        assert "saves" not in str(whole)
        assert len(str(whole).splitlines()) == len(said.splitlines()) - 2
        shards = [plan(mine.model_copy(update={"shard": f"{n}/2"}), pool=pool) for n in (1, 2)]
        assert sum(shard.asked for shard in shards) == 20

        run(asked_at(server, store=str(tmp_path / "store")), pool=pool, out=tmp_path / "out")
        after = plan(mine, pool=pool)
        assert (after.stored, after.spared, after.prompt_tokens) == (20, 0, 0)


def test_the_command_takes_a_part_and_embeddings(pool: Path, embeddings: Path, tmp_path: Path) -> None:
    with Server() as server:
        common = ["rate", "--pool", pool, "--embeddings", embeddings, "--set", "name=r", "--set", "sample=0.1"]
        common += ["--set", f"backend={{kind: openai, model: m, api_key_env: null, base_url: '{server.url}'}}"]
        for more in (["--dry-run"], ["--out", tmp_path / "out"]):
            result = CliRunner().invoke(main, [str(argument) for argument in [*common, *more]])
            assert result.exit_code == 0, result.output
    asked = {sample for sample, row in rows(tmp_path / "out").items() if row["status"] == "ok"}
    assert asked == chosen(pool, embeddings, sample=0.1)
    assert Artifact.open(tmp_path / "out").manifest.facts["sample"]["by"] == "source and embedding"
