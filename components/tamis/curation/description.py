"""The description of this stage for the rest of Tamis."""

from __future__ import annotations

from tamis.core.stages import Stage, StageInput

CURATE = Stage(
    "curate",
    "CurationSettings",
    makes="curation",
    help="Estimate the raters' errors and correct their scores.",
    inputs=(
        StageInput("ratings", many=True),
        StageInput("neighbors"),
        StageInput("pool", required=False),
        StageInput("embeddings", required=False),
    ),
    example="tamis curate --ratings work/ratings/llama --neighbors work/neighbors --pool work/pool \\\n"
    "      --embeddings work/embeddings --out work/curation",
    place="curation",
)
STAGES = (CURATE,)
