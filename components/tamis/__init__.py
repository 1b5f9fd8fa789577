"""Tamis: select instruction-tuning data by curated LLM ratings (DS2, arXiv 2410.10877)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

__version__ = "0.4.0"
__all__ = ["__version__", "load"]


def load(run: str | Path, *, ids: Sequence[str] | None = None, messages: bool = False) -> pa.Table:
    """Everything that a run knows about its samples, as one Arrow table; or the table of one artifact.

    For a run, the table has a row per sample of the pool, in the pool's order, and the columns below. They are null
    where a rater, the curation or a subset has no value for a sample.

    * `id` (string), `source` (dictionary of strings), `origin` (int64: row in the source, from 0), `metadata` (string:
      JSON of the fields that the pool keeps);
    * `messages` (list of {role, content}, with the optional fields that some sample has), if `messages` is true;
    * `tools` (text: JSON of the function schemas), if some sample has tools;
    * `ratings/RATER/…` for every rater: a column for each criterion (by the prompt ds2-v1 `rarity`, `complexity` and
      `informativeness`, int8, 1..10), `overall` (int8, 1..10), `expected` (float32, 1..10), `status` (dictionary of
      strings; "ok" where there is a rating), `rationale` (string) if the rater wrote one that is kept;
    * `curation/RATER/…` for every rater of the curation: `raw_score`, `score`, `suggested` (int8, classes 0..5),
      `flagged` (bool), `error_probability`, `confidence` (float32, 0..1), `mean` (float32, on the scale of classes),
      `diversity` (float32, 0..1);
    * `scores/NAME/score` (float64) for perplexity, deita and less, where the run has them;
    * `selections/SUBSET/…` for every subset: `picked` (bool), `rank` (int64, 0 is the first picked), `score` (float64,
      the strategy's score).

    For one artifact, the table has the columns that the README of its stage lists; a pool has `messages` only if
    `messages` is true. Embeddings have `id` and `vector` (list of d float16); neighbours have `id`, `indices` (list of
    k int32) and `distances` (list of k float32).

    `.to_pandas()` turns the table into a data frame.

    Args:
        run: the folder of a run (its work_dir, or work_dir/runs/NAME) or of an artifact; local or in object storage.
        ids: only these samples of a run, in this order; all samples if None.
        messages: whether to read the conversations.

    Raises:
        ArtifactError: when the folder is neither, or an artifact is damaged or has no table.
        InputError: when the artifacts are not all from one run, or one of `ids` is not in the pool.
        SettingsError: when `ids` are given with a single artifact.
        StorageError: when storage cannot be read.
    """
    from tamis import notebooks

    return notebooks.load(run, ids, messages)
