"""perplexity: the samples with the highest perplexity under a language model.

The scores come from `tamis score` with `measure.kind: perplexity`. DS2 measured the rating prompt, the sample and the
padding of its batches together; `text: conversation` measures the whole sample alone.
"""

from __future__ import annotations

from tamis.selection.strategies.base import Strategy

STRATEGY = Strategy(
    "perplexity",
    order=("model_scores",),
    about="perplexity under a language model, highest first",
    scores="perplexity",
)
