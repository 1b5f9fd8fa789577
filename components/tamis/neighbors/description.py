"""What the rest of Tamis knows of this stage."""

from __future__ import annotations

from tamis.core.stages import Stage, StageInput

NEIGHBORS = Stage(
    "neighbors",
    "NeighborsSettings",
    makes="neighbors",
    help="Find every sample's nearest neighbours. With graphs or parts that are there, only what is new is compared.",
    inputs=(
        StageInput("embeddings"),
        StageInput("known", True, False, "Neighbours of an earlier pool, to go on from", "neighbors"),
        StageInput("parts", True, False, "Parts made with the setting `shard`, to be put together", "neighbors"),
    ),
    example="tamis neighbors --embeddings work/embeddings --set k=32 --out work/neighbors",
    place="neighbors",
)
STAGES = (NEIGHBORS,)
