"""What the rest of Tamis knows of this stage."""

from __future__ import annotations

from tamis.core.stages import Stage, StageInput

EMBED = Stage(
    "embed",
    "EmbeddingSettings",
    makes="embeddings",
    help="Embed every sample. Vectors that known embeddings hold are taken over.",
    inputs=(
        StageInput("pool"),
        StageInput("known", True, False, "Embeddings of an earlier pool, to take vectors over from", "embeddings"),
    ),
    example="tamis embed --pool work/pool --set model=BAAI/bge-large-en-v1.5 --out work/embeddings",
    place="embeddings",
    pod="embedding",
    packages={"sentence_transformers": "embedding"},
)
STAGES = (EMBED,)
