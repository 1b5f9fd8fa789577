"""What the rest of Tamis knows of this stage."""

from __future__ import annotations

from tamis.core.stages import Stage, StageInput

EMBED = Stage(
    "embed",
    "EmbeddingSettings",
    makes="embeddings",
    help="Compute an embedding for every sample. Vectors in known embeddings are reused.",
    inputs=(
        StageInput("pool"),
        StageInput("known", True, False, "Embeddings of an earlier pool, whose vectors are reused", "embeddings"),
    ),
    example="tamis embed --pool work/pool --set model=BAAI/bge-large-en-v1.5 --out work/embeddings",
    place="embeddings",
    pod="embedding",
    packages={"sentence_transformers": "embedding"},
)
STAGES = (EMBED,)
