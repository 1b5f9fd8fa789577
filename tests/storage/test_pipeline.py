"""The pipeline through `kfp.local` with its data and its ratings in real object storage."""

import json
from pathlib import Path
from typing import Any, List  # noqa: UP035  kfp reads this spelling only

import pytest
import yaml
from click.testing import CliRunner
from kfp import dsl, local

from tamis.cli import main
from tamis.core.artifacts import Artifact
from tamis.core.settings import parse, said
from tamis.core.storage import children, locate, names_in, upload
from tamis.rating.settings import RatingSettings
from tamis.rating.stage import run as rate
from tamis_pipelines import chain, definitions, sharding
from tamis_pipelines.pods import CompileSettings
from tests.artifacts import conversation, make_pool
from tests.llm_server import Asked, Reaction, Server, completion
from tests.pipeline.conftest import FinishedRun, tamis
from tests.pipeline.conftest import settings_file as settings_file  # a fixture


def test_a_run_elsewhere_with_its_data_in_object_storage_gives_the_same_bytes(
    remote: str, finished_run: FinishedRun, tmp_path: Path
) -> None:
    file, first = finished_run
    assert first.returncode == 0, first.stderr
    upload(file.parent / "data.jsonl", locate(f"{remote}/data.jsonl"))
    settings = yaml.safe_load(file.read_text())
    settings["pool"]["sources"][0]["path"] = f"{remote}/data.jsonl"
    settings["raters"][0]["backend"]["path"] = f"{remote}/data.jsonl"
    settings["work_dir"] = str(tmp_path)
    other = tmp_path / "remote.yaml"
    other.write_text(yaml.safe_dump(settings))
    ended = tamis("run", other)
    assert ended.returncode == 0, ended.stderr
    for kind in ("pool", "ratings/imported", "neighbors", "curation", "selections/best", "selections/random"):
        here, there = (Artifact.open(work / kind).manifest for work in (file.parent / "work", tmp_path))
        assert here.content_hash == there.content_hash, kind


def test_a_run_reads_its_data_from_object_storage_and_keeps_its_answers_there(
    remote: str, settings_file: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openai")
    upload(tmp_path / "data.jsonl", locate(f"{remote}/data.jsonl"))
    settings = yaml.safe_load(settings_file.read_text())
    settings["pool"]["sources"][0]["path"] = f"{remote}/data.jsonl"
    with Server(lambda _: Reaction(completion())) as server:
        service = {"kind": "openai", "model": "m", "base_url": server.url, "api_key_env": None}
        settings["raters"] = [{"name": "asked", "store": f"{remote}/answers", "backend": service}]
        settings_file.write_text(yaml.safe_dump(settings))
        ended = tamis("run", settings_file)
        assert ended.returncode == 0, ended.stderr
        assert len(server.asked) == 42
        assert Artifact.open(tmp_path / "work/selections/best").manifest.rows == 10
        # Another run finds the answers.
        again = parse(RatingSettings, settings["raters"][0], where="here")
        assert rate(again, pool=tmp_path / "work/pool", out=f"{remote}/again").facts["reused"] == 42
        assert len(server.asked) == 42
    (folder,) = (one for one in children(locate(f"{remote}/answers")) if len(one.name) == 32)
    assert any(name.endswith(".jsonl") for name in names_in(folder))


def test_every_stage_of_a_run_writes_to_object_storage_what_it_writes_here(
    remote: str, settings_file: Path, tmp_path: Path
) -> None:
    settings = yaml.safe_load(settings_file.read_text())
    upload(tmp_path / "data.jsonl", locate(f"{remote}/data.jsonl"))

    def run(place: str) -> None:
        def made(*words: str, out: str, **values: Any) -> str:
            file = tmp_path / "stage.yaml"
            file.write_text(yaml.safe_dump(values))
            options = ["--settings", str(file), "--out", f"{place}/{out}"] if values else ["--out", f"{place}/{out}"]
            ended = CliRunner().invoke(main, [*words, *options])
            assert ended.exit_code == 0, ended.output
            return f"{place}/{out}"

        data = f"{remote}/data.jsonl"
        source, rater = settings["pool"]["sources"][0] | {"path": data}, settings["raters"][0]
        pool = made("pool", out="pool", sources=[source])
        rater |= {"backend": rater["backend"] | {"path": data}}
        rated = made("rate", "--pool", pool, out="ratings", **rater)
        embedded = made("embed", "--pool", pool, out="embeddings", **settings["embedding"])
        near = made("neighbors", "--embeddings", embedded, out="neighbors")
        curated = made("curate", "--pool", pool, "--ratings", rated, "--neighbors", near, out="curation")
        made("select", "--pool", pool, "--curation", curated, out="best", **settings["subsets"][0])

    run(f"{remote}/out")
    run(str(tmp_path / "out"))
    for kind in ("pool", "ratings", "embeddings", "neighbors", "curation", "best"):
        there, here = (Artifact.open(f"{place}/{kind}") for place in (f"{remote}/out", tmp_path / "out"))
        assert there.manifest.content_hash == here.manifest.content_hash, kind


@pytest.mark.filterwarnings("ignore:You may be attemping")
def test_a_rater_of_several_pods_gives_the_bytes_of_one_and_goes_on_after_a_failure(
    remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openai")
    monkeypatch.setattr(definitions, "fit", lambda task, *_, **__: task)  # pods mean nothing here
    pool = make_pool(tmp_path / "pool", [conversation(f"Say {n}, please.", f"{n}.") for n in range(48)])

    @dsl.pipeline
    def rating(raters: List[dict], workers: List[dict]) -> None:  # noqa: UP006
        there = dsl.importer(artifact_uri=str(pool), artifact_class=dsl.Dataset, reimport=True)
        given, fixed = {"raters": raters, "workers": workers}, CompileSettings(sharded=True, parallelism=1)
        chain._rated(definitions._Tasks(given, fixed), there.output, given, fixed)

    ill = True

    def behave(asked: Asked) -> Reaction:
        if ill and len(server.asked) > 8:
            return Reaction({"error": {"message": "the account is closed"}}, status=403)
        return Reaction(completion())

    rows = [{"id": id, "overall": 8} for id in Artifact.open(pool).table(["id"])["id"].to_pylist()]
    upload(write_rows(tmp_path / "known.jsonl", rows), locate(f"{remote}/known.jsonl"))
    with Server(behave) as server:
        service = {"kind": "openai", "model": "m", "base_url": server.url, "api_key_env": None}
        known = {"kind": "import", "path": f"{remote}/known.jsonl", "by": "id"}
        backends = {"asked": {"store": f"{remote}/ratings", "backend": service}, "known": {"backend": known}}
        raters = [parse(RatingSettings, {"name": name} | given, where="") for name, given in backends.items()]
        pods = sharding.workers(raters, {"asked": 3})
        given = {"raters": [*map(said, raters)], "workers": [*map(said, pods)]}
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "runs"))
        with pytest.raises(RuntimeError, match="for-loop"):
            rating(**given)
        paid, ill = 8, False
        server.asked.clear()
        rating(**given)
        assert len({one.prompt for one in server.asked}) == len(server.asked) == 48 - paid
        merged = (tmp_path / "runs").glob("*/*/merge-ratings/ratings")
        made = {one.name: one.manifest for one in map(Artifact.open, merged)}
        assert set(made) == {"asked", "known"}
        for rater in raters:
            alone = rate(rater.model_copy(update={"store": None}), pool=pool, out=tmp_path / rater.name)
            assert made[rater.name].content_hash == alone.content_hash
    assert made["asked"].facts["asked"] == 48 - paid


def write_rows(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
