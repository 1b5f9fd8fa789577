"""less: the samples with the highest influence on chosen tasks (Xia et al., arXiv 2402.04333).

The score is that of `tamis influence`: of each task its best subtask, of several tasks the best one. With `variant:
ds2-paper` it is the mean over the tasks, as in DS2's experiments.
"""

from __future__ import annotations

from tamis.selection.strategies.base import Strategy

STRATEGY = Strategy("less", order=("model_scores",))
