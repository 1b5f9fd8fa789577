"""The finetuning stage's description for the rest of Tamis."""

from __future__ import annotations

from tamis.core.stages import Stage, StageInput

FINETUNE = Stage(
    "finetune",
    "FinetuningSettings",
    makes="model",
    help="Finetune a base model on a subset.",
    inputs=(StageInput("selection"),),
    example="tamis finetune --selection work/ds2 --settings finetuning.yaml --out work/models/ds2",
    place="models",
    several=True,
    pod="training",
    packages={"trl": "training", "peft": "training"},
)
STAGES = (FINETUNE,)
