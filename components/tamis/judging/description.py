"""What the rest of Tamis knows of this stage."""

from __future__ import annotations

from tamis.core.stages import Stage, StageInput

JUDGE = Stage(
    "judge",
    "JudgingSettings",
    makes="judgement",
    help="Let a model judge answers against an opponent's. It is asked in both orders.",
    inputs=(
        StageInput("model", required=False),
        StageInput("against", required=False, help="The opponent: a model artifact", kind="model"),
    ),
    example="tamis judge --model work/models/ds2 --against work/models/random --settings judging.yaml \\\n"
    "      --out work/judgements/ds2",
    place="judgements",
    several=True,
    pod="rating",
    planned=True,
)
STAGES = (JUDGE,)
