"""Tables: the Arrow schemas of artifacts, and a writer of Parquet parts that uses bounded memory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from tamis.core.sample_columns import MESSAGES, TOOLS

POOL = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("messages", MESSAGES, nullable=False),
        pa.field("origin", pa.int64(), nullable=False),  # row in the source, from 0
        pa.field("metadata", pa.string()),  # JSON object of the source's fields in `keep`
        pa.field("tools", TOOLS),
    ]
)

REJECTS = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)

# Samples that were dropped as near-copies, by clusters: ordered by the row of the kept sample in the pool.
NEAR_COPIES = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("kept", pa.string(), nullable=False),  # id of the cluster's kept sample
        pa.field("kept_source", pa.string(), nullable=False),
        pa.field("similarity", pa.float32(), nullable=False),  # Jaccard similarity of both texts' n-grams
    ]
)

MISSING: Literal["missing"] = "missing"  # status of a sample for which an imported file has no rating
STATUSES = ("ok", "unparsable", "refused", "too_long", "failed", MISSING)
NOT_ASKED: Literal["not_asked"] = "not_asked"  # status of a sample that the settings exclude; not a failure
POSSIBLE = "possible_ratings"  # name of a fact: the ratings 1..10 that are possible on the rater's scale

RATIONALE = pa.field("rationale", pa.string())  # what the rater wrote before its scores
_WHOSE = (pa.field("id", pa.string(), nullable=False), pa.field("rater", pa.string(), nullable=False))
_RESULT = (
    pa.field("overall", pa.int8()),  # 1..10; null unless status is "ok"
    pa.field("expected", pa.float32()),  # mean of the overall rating under the rater's token probabilities
    pa.field("status", pa.string(), nullable=False),
    pa.field("error", pa.string()),
    pa.field("attempts", pa.int16(), nullable=False),
    pa.field("prompt_tokens", pa.int32()),
    pa.field("completion_tokens", pa.int32()),
)


def ratings_with(criteria: Iterable[pa.Field], *, rationale: bool = False) -> pa.Schema:
    """The table of ratings by one rater, with its criteria as columns."""
    return pa.schema([*_WHOSE, *criteria, *_RESULT, *([RATIONALE] if rationale else [])])


def criteria_in(schema: pa.Schema) -> list[str]:
    """The columns of a table of ratings that are criteria, without the overall rating."""
    others = {field.name for field in (*_WHOSE, *_RESULT, RATIONALE)}
    return [name for name in schema.names if name not in others]


# The paper's criteria, as the prompt ds2-v1 and imported ratings have them.
RATINGS = ratings_with(pa.field(name, pa.int8()) for name in ("rarity", "complexity", "informativeness"))

CURATION = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("rater", pa.string(), nullable=False),
        pa.field("raw_score", pa.int8()),  # score class 0..5; null where the sample has no rating
        pa.field("score", pa.int8()),  # score class after curation; null if unknown
        pa.field("flagged", pa.bool_(), nullable=False),  # the rating is probably wrong
        pa.field("error_probability", pa.float32()),  # P(true score != rating)
        pa.field("suggested", pa.int8()),  # most probable score class
        pa.field("confidence", pa.float32()),  # probability that `score` is right
        pa.field("mean", pa.float32()),  # posterior mean of the true score class; null if unknown
        pa.field("diversity", pa.float32(), nullable=False),  # long-tail diversity score, 0..1
    ]
)


def curation_with_posterior(classes: int) -> pa.Schema:
    """`CURATION` with a last column `posterior`: the probabilities of the `classes` true score classes, or null.

    They are float32, because many readers of Parquet do not support half floats.
    """
    return CURATION.append(pa.field("posterior", pa.list_(pa.float32(), classes)))


# Another file of the curation: each rater's most confident corrections, with the corrected sample's nearest neighbours.
CORRECTIONS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("rater", pa.string(), nullable=False),
        pa.field(
            "neighbors",
            pa.list_(
                pa.struct(
                    [("id", pa.string()), ("raw_score", pa.int8()), ("distance", pa.float32())]  # cosine distance
                )
            ),
            nullable=False,
        ),
    ]
)

# Scores that a strategy ranks by and that need no rater. A stage may add columns after these.
SCORES = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("score", pa.float64()),  # null unless status is "ok"
        pa.field("status", pa.string(), nullable=False),  # "ok", or why there is no score
    ]
)

SELECTION = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("rank", pa.int64(), nullable=False),  # 0 is the first picked
        pa.field("score", pa.float64()),  # the score that the strategy ranked by; null if it has none
        pa.field("diversity", pa.float32()),
    ]
)

EVALUATION = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("stderr", pa.float64()),
        pa.field("n", pa.int64(), nullable=False),
    ]
)

# Two rows per prompt. In order 1 the model's answer was shown first, in order 2 its opponent's.
JUDGEMENT = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # hash of the prompt's text
        pa.field("set", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("order", pa.int8(), nullable=False),  # 1 or 2
        pa.field("verdict", pa.string()),  # "model", "against" or "tie"; null unless status is "ok"
        pa.field("model_score", pa.int8()),  # 1..10, where the judge's prompt asks for scores
        pa.field("against_score", pa.int8()),
        pa.field("model_answer", pa.string()),
        pa.field("against_answer", pa.string()),
        pa.field("model_length", pa.int32()),  # characters
        pa.field("against_length", pa.int32()),
        pa.field("status", pa.string(), nullable=False),  # "ok", or why there is no verdict
        pa.field("error", pa.string()),
        pa.field("attempts", pa.int16(), nullable=False),
        pa.field("prompt_tokens", pa.int32()),
        pa.field("completion_tokens", pa.int32()),
    ]
)

IDS = pa.schema([pa.field("id", pa.string(), nullable=False)])


class PartsWriter:
    """Writes rows to `part-00000.parquet`, `part-00001.parquet`, … with at most `rows_per_part` rows each.

    Use it as a context manager. A table without rows gets one empty part, so that its schema can be read.
    """

    def __init__(self, folder: Path, schema: pa.Schema, rows_per_part: int = 100_000) -> None:
        self.rows = 0
        self._folder, self._schema, self._rows_per_part = folder, schema, rows_per_part
        self._writer: pq.ParquetWriter | None = None
        self._parts = self._in_part = 0

    def __enter__(self) -> PartsWriter:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, table: pa.Table) -> None:
        """Append the rows of `table`, which must have the schema's columns."""
        table = table.select(self._schema.names).cast(self._schema)
        start = 0
        while start < table.num_rows:
            if self._writer is None:
                self._open()
            taken = min(table.num_rows - start, self._rows_per_part - self._in_part)
            assert self._writer is not None
            self._writer.write_table(table.slice(start, taken))
            start += taken
            self._in_part += taken
            self.rows += taken
            if self._in_part == self._rows_per_part:
                self._close()

    def write_rows(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append dictionaries with the schema's columns."""
        self.write(pa.Table.from_pylist(list(rows), schema=self._schema))

    def _open(self) -> None:
        path = self._folder / f"part-{self._parts:05d}.parquet"
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._parts += 1
        self._in_part = 0

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._parts == 0:
            self._open()
        self._close()
