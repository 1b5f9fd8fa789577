"""The sheet of samples to grade, as CSV or JSONL."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tamis.core.artifacts import Artifact
from tamis.core.ids import unpack
from tamis.core.sample_columns import rows_of
from tamis.core.samples import Message, as_text
from tamis.curation.classes import UNRATED
from tamis.curation.grade_draw import Drawn, Scores
from tamis.curation.grade_files import INFORMATIVE, RANDOM

_TEXTS = 2_000  # samples whose texts are in memory at once
_LONGEST_CELL = 32_000  # characters; spreadsheets hold 32,767
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # beginnings that spreadsheets read as a formula (OWASP, CSV injection)


def sheet(pool: Artifact, scores: Scores, drawn: Drawn, sources: Sequence[str], *, blind: bool) -> list[dict[str, Any]]:
    """A row for each drawn sample, in their order; `sources` are the names of their sources.

    `blind` omits the raters' and curated scores.
    """
    ids = unpack(scores.keys[drawn.rows]).to_pylist()
    texts = _texts(pool, ids)
    rows = []
    for place, (sample, row) in enumerate(zip(ids, drawn.rows.tolist(), strict=True)):
        instruction, response = texts[sample]
        weight, confidence = float(drawn.weights[place]), float(scores.confidence[row])
        cells: dict[str, Any] = {"id": sample, "source": sources[place]}
        cells |= {"instruction": instruction, "response": response, "grade": None, "grader": None, "note": None}
        if not blind:
            cells["raw_score"] = None if scores.raw[row] == UNRATED else int(scores.raw[row])
            cells["score"] = None if scores.score[row] == UNRATED else int(scores.score[row])
            cells["confidence"] = None if np.isnan(confidence) else round(confidence, 4)
        cells["why"] = INFORMATIVE if np.isnan(weight) else RANDOM
        cells["weight"] = None if np.isnan(weight) else max(1.0, round(weight, 6))
        rows.append(cells)
    return rows


def plain_cell(text: str) -> str:
    """Text as a CSV cell that spreadsheets neither read as a formula nor find too long.

    An apostrophe is put before text that could begin a formula, even after white space; very long texts are cut.
    """
    if len(text) > _LONGEST_CELL:
        text = f"{text[:_LONGEST_CELL]} … [{len(text) - _LONGEST_CELL:,} more characters: see the pool]"
    return f"'{text}" if text.lstrip(" \n\v\f\N{NO-BREAK SPACE}\ufeff").startswith(_FORMULA) else text


def _texts(pool: Artifact, ids: Sequence[str]) -> Mapping[str, tuple[str, str]]:
    """Each sample's instruction and response."""
    wanted, found = pa.array(ids, pa.string()), {}
    for batch in pool.batches(["id", "messages"], rows=_TEXTS):
        for row in rows_of(batch.filter(pc.is_in(batch["id"], value_set=wanted))):
            found[row["id"]] = _parts(row["messages"])
    return found


def _parts(messages: Sequence[Message]) -> tuple[str, str]:
    """Everything before the last answer (the instruction alone, or the conversation with roles), and that answer."""
    last = max(place for place, message in enumerate(messages) if message["role"] == "assistant")
    before = messages[:last]
    asked = before[0]["content"] if len(before) == 1 and before[0]["role"] == "user" else as_text(before)
    return asked, messages[last]["content"]


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow([plain_cell(value) if isinstance(value, str) else value for value in row.values()])
    return text.getvalue().encode("utf-8-sig")  # the byte order mark tells spreadsheets that the file is UTF-8


def _as_jsonl(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


WRITERS = {".csv": _as_csv, ".jsonl": _as_jsonl}
