"""What the rest of Tamis knows of this stage."""

from __future__ import annotations

from tamis.core.stages import Stage, StageInput

NEAR_COPIES = Stage(
    "near-copies",
    "NearCopiesSettings",
    makes="pool",
    help="Drop near-copies: of samples with almost the same text, one is kept. The result is a pool.",
    inputs=(
        StageInput("samples", help="The pool", kind="pool"),
        StageInput("known", True, False, "Results for earlier pools, whose decisions are kept", "pool"),
    ),
    example="tamis near-copies --samples work/pool --set threshold=0.8 --out work/pool-without-copies",
    place="pool",
    packages={"rensa": "nearcopies"},
)
STAGES = (NEAR_COPIES,)
