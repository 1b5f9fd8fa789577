"""Files with the ids of samples that must not be picked, as a search for test questions in the pool leaves them."""

from __future__ import annotations

import io
import json
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa

from tamis.core.errors import InputError, SettingsError
from tamis.core.ids import Keys, pack
from tamis.core.storage import locate, read_bytes

_FORMATS = "txt (one id a line); jsonl, csv or parquet with `id`"


def read_ids(uri: str) -> Keys:
    """Keys of the distinct ids in one file: (m,) S16, sorted.

    Args:
        uri: a local or remote .txt (one id a line), or .jsonl, .csv or .parquet with a field or column `id`.

    Raises:
        SettingsError: when the name ends otherwise.
        InputError: when the content is not of that format, or a value is no id.
        StorageError: when the file cannot be read.
    """
    suffix = PurePosixPath(uri).suffix.lower()
    if suffix not in {".txt", ".jsonl", ".csv", ".parquet"}:
        raise SettingsError(f"exclude: {uri} ends in '{suffix}'", allowed=_FORMATS, action="convert or rename it")
    data = read_bytes(locate(uri))
    try:
        if suffix == ".txt":
            ids = pa.array([line.strip() for line in data.decode("utf-8-sig").split("\n") if line.strip()], pa.string())
        elif suffix == ".jsonl":
            ids = _of_lines(uri, data.decode("utf-8-sig"))
        else:
            ids = _of_table(uri, suffix, data)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"exclude: {uri} cannot be read: {error}", allowed=_FORMATS, action="correct it") from None
    return np.unique(pack(ids, where=f"exclude: {uri}"))


def _of_lines(uri: str, text: str) -> pa.Array:
    ids = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"exclude: {uri}, line {number} is not JSON: {error.msg}", action="correct it") from None
        identity = value.get("id") if isinstance(value, dict) else None
        if not isinstance(identity, str):
            raise InputError(f"exclude: {uri}, line {number} has no text field `id`", allowed='{"id": "...", ...}')
        ids.append(identity)
    return pa.array(ids, pa.string())


def _of_table(uri: str, suffix: str, data: bytes) -> pa.Array:
    import pyarrow.csv
    import pyarrow.parquet as pq

    if suffix == ".parquet":
        table = pq.read_table(io.BytesIO(data))
    else:
        # An id of digits only would be read as a number.
        options = pyarrow.csv.ConvertOptions(column_types={"id": pa.string()})
        table = pyarrow.csv.read_csv(io.BytesIO(data), convert_options=options)
    if "id" not in table.column_names:
        raise InputError(
            f"exclude: {uri} has no column 'id'; it has {', '.join(table.column_names)}", action="name the column 'id'"
        )
    return table["id"].combine_chunks().cast(pa.string())
