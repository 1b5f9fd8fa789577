"""Tamis: sieve instruction-tuning data by curated LLM ratings (DS2, arXiv 2410.10877)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

__version__ = "0.4.0"
__all__ = ["__version__", "load"]


def load(run: str | Path, *, ids: Sequence[str] | None = None, messages: bool = False) -> pa.Table:
    """What a run knows of every sample, as an Arrow table; or the table of one artifact.

    Of a run the table has a row per sample of the pool, in the pool's order, and these columns; where a rater, the
    curation or a subset has nothing to say of a sample, its columns are null:

    * `id` (string), `source` (dictionary of strings), `origin` (int64: row in the source, from 0), `metadata` (string:
      JSON of the fields that the pool keeps);
    * `messages` (list of {role, content}), if asked for;
    * `ratings/RATER/…` for every rater: `rarity`, `complexity`, `informativeness`, `overall` (int8, 1..10), `expected`
      (float32, 1..10), `status` (dictionary of strings; "ok" where there is a rating);
    * `curation/RATER/…` for every rater of the curation: `raw_score`, `score`, `suggested` (int8, classes 0..5),
      `flagged` (bool), `error_probability`, `confidence` (float32, 0..1), `mean` (float32, on the classes' scale),
      `diversity` (float32, 0..1);
    * `scores/NAME/score` (float64) for perplexity, deita and less, where the run has them;
    * `selections/SUBSET/…` for every subset: `picked` (bool), `rank` (int64, 0 is the first picked), `score` (float64,
      what the strategy ranked by).

    Of one artifact it has the columns that the README of its stage lists, `messages` of a pool if asked for. Embeddings
    are `id` and `vector` (list of d float16), neighbours `id`, `indices` (list of k int32) and `distances` (list of k
    float32).

    Texts are read only if `messages` is true. `.to_pandas()` makes a data frame of the table.

    Args:
        run: a run's folder (its work_dir, or work_dir/runs/NAME), or an artifact's; local or in object storage.
        ids: of a run, only these samples, in this order; all of the pool's if not given.
        messages: whether to read the conversations, too.

    Raises:
        ArtifactError: when the folder is neither, an artifact is damaged, or one that holds no table.
        InputError: when the artifacts are not of one run, or one of `ids` is not in the pool.
        SettingsError: when `ids` are given with a single artifact.
        StorageError: when storage cannot be read.
    """
    from tamis import notebooks

    return notebooks.load(run, ids, messages)
