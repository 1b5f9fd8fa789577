"""What the rest of Tamis knows of this stage."""

from __future__ import annotations

from tamis.core.stages import Stage

POOL = Stage(
    "pool",
    "PoolSettings",
    makes="pool",
    help="Assemble the data pool from files and data sets.",
    example="tamis pool --settings pool.yaml --out work/pool",
    place="pool",
)
STAGES = (POOL,)
