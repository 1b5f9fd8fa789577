"""A whole selection as pods of a really built image, through a real S3 server; some pods are killed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tamis.core.artifacts import Artifact
from tests.cluster.conftest import NAMESPACE, Cluster, parts_in_the_store, ratings_in, selection
from tests.pipeline.conftest import tamis, write_settings
from tests.storage.seaweed import BUCKET, Seaweed

pytestmark = [pytest.mark.timeout(1800)]
JOBS = ["pool", "embed", "neighbors", "rate-llama", "curate", "select-ds2", "select-random", "report"]


def settings_of(models: str, data: str) -> dict[str, Any]:
    """Settings of the stages for models in the folder `models` and the pool's file `data`."""
    rater = {"kind": "transformers", "model": f"{models}/smollm2", "batch_tokens": 128}
    return {
        "pool": {"sources": [{"name": "facts", "path": data, "schema": "instruction"}]},
        "rater-llama": {"name": "smollm2", "backend": rater},
        "embedding": {"model": f"{models}/minilm"},
        "subset-ds2": {"name": "ds2", "strategy": "ds2", "size": 10},
        "subset-random": {"name": "random", "strategy": "random", "size": 10},
    }


@pytest.mark.usefixtures("namespace", "volume")
def test_a_selection_ends_like_a_local_run_though_pods_are_killed(
    cluster: Cluster, storage: Seaweed, model_folder: Path, tmp_path: Path
) -> None:
    data = write_settings(tmp_path, model_folder).parent / "data.jsonl"
    rows = [json.loads(line) for line in data.read_text().splitlines()][:40]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    storage.client().upload_file(str(data), BUCKET, "data/facts.jsonl")
    run = "runs/killed"

    cluster.apply(selection(storage, settings_of("/cache/hf", f"s3://{BUCKET}/data/facts.jsonl"), run))
    before = cluster.wait(lambda: parts_in_the_store(storage, run), 300, "rating in the store")
    first = cluster.pods("tamis-rate-llama")[-1]["metadata"]["name"]
    cluster("-n", NAMESPACE, "delete", "pod", first, "--grace-period=0", "--force")
    cluster.wait(lambda: cluster.pods("tamis-curate"), 60, "pod of curation")
    waiting = cluster.pods("tamis-curate")[0]["metadata"]["name"]
    cluster("-n", NAMESPACE, "delete", "pod", waiting, "--grace-period=0", "--force")

    assert all(cluster.ended([f"tamis-{job}" for job in JOBS], 900).values())
    log = cluster("-n", NAMESPACE, "logs", "job/tamis-rate-llama")
    reused = int(re.search(rf"(\d+) of {len(rows)} ratings are already in the store", log)[1])  # type: ignore[index]
    assert reused >= len(ratings_in(storage, before)) > 0
    stored = ratings_in(storage, parts_in_the_store(storage, run))
    assert len(stored) == len(set(stored)) == len(rows), "a rating was asked for twice"

    local = tmp_path / "local"
    for stage, values in settings_of(str(model_folder), str(data)).items():
        (tmp_path / f"{stage}.yaml").write_text(yaml.safe_dump(values))
    pool, embeddings, neighbors, curation = (local / name for name in ("pool", "embeddings", "neighbors", "curation"))
    known = ["--pool", pool, "--curation", curation, "--neighbors", neighbors]
    ratings, subsets = local / "ratings/llama", local / "selections"
    for command in (
        ["pool", "--settings", tmp_path / "pool.yaml", "--out", pool],
        ["rate", "--settings", tmp_path / "rater-llama.yaml", "--pool", pool, "--out", ratings],
        ["embed", "--settings", tmp_path / "embedding.yaml", "--pool", pool, "--out", embeddings],
        ["neighbors", "--embeddings", embeddings, "--out", neighbors],
        ["curate", "--ratings", ratings, "--neighbors", neighbors, "--out", curation],
        ["select", "--settings", tmp_path / "subset-ds2.yaml", *known, "--out", subsets / "ds2"],
        ["select", "--settings", tmp_path / "subset-random.yaml", *known, "--out", subsets / "random"],
    ):
        ended = tamis(*command, timeout=900)
        assert ended.returncode == 0, ended.stderr
    for name in ("ratings/llama", "embeddings", "neighbors", "curation", "selections/ds2", "selections/random"):
        manifest = storage.client().get_object(Bucket=BUCKET, Key=f"{run}/{name}/manifest.json")["Body"].read()
        assert json.loads(manifest)["content_hash"] == Artifact.open(local / name).manifest.content_hash, name
    subset = storage.client().get_object(Bucket=BUCKET, Key=f"{run}/selections/ds2/subset.jsonl")["Body"].read()
    assert subset == (local / "selections/ds2/subset.jsonl").read_bytes()
