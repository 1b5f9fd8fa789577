"""The evaluation stage's description for the rest of Tamis."""

from __future__ import annotations

from tamis.core.stages import Stage, StageInput

EVALUATE = Stage(
    "evaluate",
    "EvaluationSettings",
    makes="evaluation",
    help="Evaluate a model on a suite of benchmarks.",
    inputs=(StageInput("model", required=False),),
    example="tamis evaluate --model work/models/ds2 --set suite=quick --out work/evaluations/ds2",
    place="evaluations",
    several=True,
    pod="evaluation",
    packages={"lm_eval": "evaluation"},
)
STAGES = (EVALUATE,)
