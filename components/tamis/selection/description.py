"""The description of this stage for the rest of Tamis."""

from __future__ import annotations

from tamis.core.stages import Stage, StageInput

SELECT = Stage(
    "select",
    "SelectionSettings",
    makes="selection",
    help="Select a subset with one of the strategies.",
    inputs=(
        StageInput("pool"),
        StageInput("curation", required=False),
        StageInput("neighbors", required=False),
        StageInput("embeddings", required=False),
        StageInput("scores", many=True, required=False),
        StageInput("signals", required=False),
    ),
    example="tamis select --pool work/pool --curation work/curation --set name=ds2 --set strategy=ds2 \\\n"
    "      --set size=10000 --out work/ds2",
    place="selections",
    several=True,
)
STAGES = (SELECT,)
