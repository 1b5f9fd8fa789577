"""perplexity: the samples that surprise a language model most.

The score is `tamis score` with `measure.kind: perplexity`. DS2 measured the rating prompt and the sample together, with
the padding of its batches; `text: conversation` is the whole sample without these two.
"""

from __future__ import annotations

from tamis.selection.strategies.base import Strategy

STRATEGY = Strategy(
    "perplexity",
    order=("model_scores",),
    about="perplexity under a language model, highest first",
    scores="perplexity",
)
