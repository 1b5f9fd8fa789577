"""The influence stage's description for the rest of Tamis."""

from __future__ import annotations

from tamis.core.stages import Stage, StageInput

INFLUENCE = Stage(
    "influence",
    "InfluenceSettings",
    makes="scores",
    help="Score every sample by its influence on given tasks (LESS).",
    inputs=(StageInput("pool"),),
    example="tamis influence --pool work/pool --settings less.yaml --out work/scores/less",
    place="scores",
    several=True,
    pod="training",
    packages={"peft": "training"},
)
STAGES = (INFLUENCE,)
