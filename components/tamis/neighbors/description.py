"""What the rest of Tamis knows of this stage."""

from __future__ import annotations

from tamis.core.stages import Stage, StageInput

NEIGHBORS = Stage(
    "neighbors",
    "NeighborsSettings",
    makes="neighbors",
    help="Find the nearest neighbours of every sample. With known graphs or parts, only new samples are compared.",
    inputs=(
        StageInput("embeddings"),
        StageInput("known", True, False, "Neighbours of an earlier pool, to extend", "neighbors"),
        StageInput("parts", True, False, "Parts made with the setting `shard`, to combine", "neighbors"),
    ),
    example="tamis neighbors --embeddings work/embeddings --set k=32 --out work/neighbors",
    place="neighbors",
)
STAGES = (NEIGHBORS,)
