"""The description of this stage for the rest of Tamis."""

from __future__ import annotations

from tamis.core.stages import Stage, StageInput

REPORT = Stage(
    "report",
    "ReportingSettings",
    makes="report",
    help="Write the report: tables, plots and an HTML page.",
    inputs=(
        StageInput("pool"),
        StageInput("ratings", many=True),
        StageInput("curation"),
        StageInput("selections", many=True, kind="selection"),
        StageInput("models", many=True, required=False, kind="model"),
        StageInput("evaluations", many=True, required=False, kind="evaluation"),
        StageInput("judgements", many=True, required=False, kind="judgement"),
        StageInput("signals", required=False),
    ),
    example="tamis report --pool work/pool --ratings work/ratings/llama --curation work/curation \\\n"
    "      --selections work/ds2 --out work/report",
    place="report",
)
STAGES = (REPORT,)
