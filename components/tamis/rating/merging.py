"""Merges the shards of one rater's ratings.

A Kubeflow pipeline cannot pass a list of artifacts into its loop over raters, only a single artifact. `gather` makes
one artifact from the shards of all raters, and `merge_one` takes the shards of one rater from it and merges them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tamis.core.artifacts import Artifact, Manifest, manifest_of
from tamis.core.errors import InputError
from tamis.core.steps import Input, Step, Uri, run_step
from tamis.core.storage import link_tree
from tamis.core.tables import POSSIBLE, PartsWriter
from tamis.rating.records import Rating
from tamis.rating.rows import BLOCK
from tamis.rating.settings import MergeSettings, RatingSettings
from tamis.rating.shards import places
from tamis.rating.summary import Summary


def run(settings: MergeSettings, *, pool: Uri, ratings: Sequence[Uri], out: Uri) -> Manifest:
    """Merge all shards of one rater. The artifact at `out` equals the one that a single worker would make.

    Raises:
        InputError: when a shard is missing or given twice, or the raters, settings or pools differ.
        ArtifactError: when one is not a finished shard.
    """
    first = manifest_of(ratings[0]) if ratings else None
    inputs = {"pool": Input(pool, "pool"), "ratings": Input(list(ratings), "ratings_part")}
    return run_step("rating", "ratings", settings, _merge, out=out, inputs=inputs, name=first.name if first else "")


def gather(settings: MergeSettings, *, ratings: Sequence[Uri], out: Uri) -> Manifest:
    """Put ratings and shards of ratings, of any raters, into one artifact, each in its own folder.

    Raises:
        ArtifactError: when one of them is unfinished or something else.
    """
    inputs = {"ratings": Input(list(ratings), "ratings", "ratings_part")}
    return run_step("rating", "ratings_parts", settings, _gather, out=out, inputs=inputs)


def _gather(step: Step[MergeSettings]) -> None:
    for number, one in enumerate(step.inputs("ratings"), 1):
        link_tree(one.folder, step.out / f"{number:04d}")
        step.rows += one.manifest.rows


def merge_one(settings: RatingSettings, *, pool: Uri, parts: Uri, out: Uri) -> Manifest:
    """Merge the shards of one rater from the artifact that `gather` made; `parts` and `out` are local folders.

    Ratings without shards are passed on unchanged.

    Raises:
        InputError: as `run` does.
        ArtifactError: when `parts` is another artifact, or damaged.
    """
    gathered = Artifact.open(parts, "ratings_parts")
    gathered.verify()
    folders = sorted({gathered.folder / Path(file.name).parts[0] for file in gathered.manifest.files})
    made = [Artifact.open(folder) for folder in folders]
    own = [one for one in made if one.name == settings.name]
    if not own:
        raise InputError(f"there are no ratings by the rater '{settings.name}'", action="use the `workers` of the run")
    if [one.manifest.kind for one in own] == ["ratings"]:
        link_tree(own[0].folder, Path(out))
        return own[0].manifest
    return run(MergeSettings(), pool=pool, ratings=[one.folder for one in own], out=out)


def _merge(step: Step[MergeSettings]) -> None:
    pool, shards = step.input("pool"), _complete(step.inputs("ratings"), step.input("pool"))
    rows = [_rows(shard) for shard in shards]
    summary = Summary()
    # Fields that were read carry their numbers in the file, which would change the bytes of another file.
    table = pa.schema([field.remove_metadata() for field in pq.read_schema(shards[0].parts()[0])])
    fields = Rating.model_fields
    with PartsWriter(step.out, table) as parts:
        for block in pool.batches(["id"], rows=BLOCK):
            found: list[dict[str, Any]] = [next(rows[place], {}) for place in places(block["id"], len(rows)).tolist()]
            if [row.get("id") for row in found] != block["id"].to_pylist():
                raise InputError("the rows of a shard do not match the pool", action="rate this shard again")
            for row in found:
                summary.add(Rating.model_validate({key: value for key, value in row.items() if key in fields}))
            parts.write(pa.Table.from_pylist(found, schema=table))
    facts = [shard.manifest.facts for shard in shards]
    summary.log(step.inputs("ratings")[0].name)
    step.rows = parts.rows
    step.models.update(shards[0].manifest.models)
    step.facts.update(summary.facts())
    step.facts |= {
        name: facts[0][name] for name in ("prompt", "backend", "scale", POSSIBLE, "criteria") if name in facts[0]
    }
    for name in ("reused", "asked", "damaged_store_parts", "shortened", "cost"):
        if name in facts[0]:
            step.facts[name] = round(sum(fact.get(name, 0) for fact in facts), 6)
    step.facts["lenient"] = dict(sorted(sum((Counter(fact.get("lenient", {})) for fact in facts), Counter()).items()))
    if "sample" in facts[0]:
        step.facts["sample"] = facts[0]["sample"]
    step.facts["shards"] = len(shards)


def _complete(shards: Sequence[Artifact], pool: Artifact) -> list[Artifact]:
    """The shards in their order.

    Raises:
        InputError: when they are not exactly the shards of one run.
    """
    if not shards:
        raise InputError("no shards are given", action="give each shard with --ratings")
    sizes = {shard.manifest.facts["shard"]["of"] for shard in shards}
    made_from = {str(_made_from(shard)) for shard in shards}
    if len(sizes) > 1 or len(made_from) > 1:
        raise InputError(
            "the shards are from different runs: they differ in "
            + ("their number" if len(sizes) > 1 else "rater, prompt, sampling, sample or backend"),
            action="give the shards of one run",
        )
    (count,) = sizes
    numbers = sorted(shard.manifest.facts["shard"]["number"] for shard in shards)
    if missing := sorted(set(range(1, count + 1)) - set(numbers)):
        named = ", ".join(f"{number}/{count}" for number in missing[:10])
        raise InputError(
            f"{len(missing)} of {count} shards are missing: {named}",
            action="rate them too; ratings in the store are not asked for again",
        )
    if len(numbers) > count:
        raise InputError(f"{len(numbers)} shards are given, but there are {count}", action="give each shard once")
    for shard in shards:
        if shard.manifest.inputs["pool"] != [pool.manifest.content_hash]:
            number = shard.manifest.facts["shard"]["number"]
            raise InputError(
                f"shard {number}/{count} was made from another pool", action="give the pool that was rated"
            )
    return sorted(shards, key=lambda shard: int(shard.manifest.facts["shard"]["number"]))


def _made_from(shard: Artifact) -> list[Any]:
    """What all shards of one run have in common."""
    config, facts = shard.manifest.config, shard.manifest.facts
    also = facts.get("sample", {}).get("also")
    sample = [config.get("sample"), config.get("sample_seed"), also, shard.manifest.inputs.get("embeddings")]
    sampling = [config[name] for name in ("temperature", "top_p", "top_k", "seed", "max_attempts")]
    return [shard.name, sampling, sample, facts["prompt"], facts["backend"]]


def _rows(shard: Artifact) -> Iterator[dict[str, Any]]:
    for block in shard.batches(rows=BLOCK):
        yield from block.to_pylist()
