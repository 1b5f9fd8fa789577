"""Kubeflow component of the selection stage."""

from typing import List, Optional  # noqa: UP035  kfp reads these spellings only

from kfp.dsl import Dataset, Input, Metrics, Output

from tamis.components import component, function_from
from tamis.selection.description import SELECT
from tamis.selection.strategies import STRATEGIES

# Keep the first three in this order: Kubeflow's cache identifies a step by its source.
_FIRST = ("perplexity", "deita", "influence")
_ADDED = {strategy.scored_by for strategy in STRATEGIES.values() if strategy.scores} - {*_FIRST}
SCORES = (*_FIRST, *sorted(_ADDED))  # an input for each step that makes scores
_SOURCE = f'''def select(
    pool: Input[Dataset],
    settings: dict,
    selection: Output[Dataset],
    metrics: Output[Metrics],
    curation: Input[Dataset] = None,
    neighbors: Input[Dataset] = None,
    embeddings: Input[Dataset] = None,
{"".join(f"    {name}: Input[Dataset] = None,{chr(10)}" for name in SCORES)}    signals: Input[Dataset] = None,
    cells: Optional[List[dict]] = None,
) -> None:
    """Choose subsets of the pool."""
    from tamis.cells import execute_cells
    from tamis.selection.settings import SelectionSettings
    from tamis.selection.stage import run

    execute_cells(
        run,
        SelectionSettings,
        settings,
        cells,
        out=selection,
        metrics=metrics,
        pool=pool.path,
        curation=curation.path if curation else None,
        neighbors=neighbors.path if neighbors else None,
        embeddings=embeddings.path if embeddings else None,
        scores=[given.path for given in ({", ".join(SCORES)}) if given],
        signals=signals.path if signals else None,
    )
'''
_KNOWN = {"Dataset": Dataset, "Input": Input, "Metrics": Metrics, "Output": Output}
select = component(SELECT)(function_from(_SOURCE, "select", _KNOWN | {"List": List, "Optional": Optional}))  # noqa: UP006
