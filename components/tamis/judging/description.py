"""What the rest of Tamis knows about this stage."""

from __future__ import annotations

from tamis.core.stages import Stage, StageInput

JUDGE = Stage(
    "judge",
    "JudgingSettings",
    makes="judgement",
    help="Let a model compare two models' answers, in both orders.",
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
