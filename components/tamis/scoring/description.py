"""The scoring stage's description for the rest of Tamis."""

from __future__ import annotations

from tamis.core.stages import Stage, StageInput

SCORE = Stage(
    "score",
    "ScoringSettings",
    makes="scores",
    help="Score every sample by a measure, such as perplexity.",
    inputs=(StageInput("pool"),),
    example="tamis score --pool work/pool --set measure.kind=perplexity --out work/scores/perplexity",
    place="scores",
    several=True,
    pod="rating",
)
STAGES = (SCORE,)
