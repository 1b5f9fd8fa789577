"""What the rest of Tamis knows about these stages."""

from __future__ import annotations

from tamis.core.stages import Stage, StageInput

RATE = Stage(
    "rate",
    "RatingSettings",
    makes="ratings",
    help="Rate every sample with a model, or import ratings.",
    inputs=(
        StageInput("pool"),
        StageInput("embeddings", required=False, help="Embeddings; `sample` is spread evenly over them"),
    ),
    example="tamis rate --pool work/pool --settings rater.yaml --out work/ratings/llama",
    place="ratings",
    several=True,
    pod="rating",
    planned=True,
    sharded=True,
)
MERGE_RATINGS = Stage(
    "merge-ratings",
    "MergeSettings",
    makes="ratings",
    help="Merge the shards of one rater's ratings.",
    inputs=(StageInput("pool"), StageInput("ratings", many=True)),
    example="tamis merge-ratings --pool work/pool --ratings work/shards/1 --ratings work/shards/2 \\\n"
    "      --out work/ratings/llama",
    module="merging",
)
STAGES = (RATE, MERGE_RATINGS)
