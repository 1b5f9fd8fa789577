"""Files with sample ids, for settings such as `exclude` that name samples."""

from __future__ import annotations

import io
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa

from tamis.core.errors import InputError, SettingsError
from tamis.core.ids import Keys, pack
from tamis.core.jsonrows import json_rows
from tamis.core.storage import locate, read_bytes
from tamis.core.texts import check_encoding, text_of

_FORMATS = "txt (one id a line); jsonl, csv or parquet with `id`"


def read_ids(uri: str, *, setting: str) -> Keys:
    """Keys of the distinct ids in one file: (m,) S16, sorted.

    Args:
        uri: a local or remote .txt (one id a line), or .jsonl, .csv or .parquet with a field or column `id`.
        setting: the setting that names the file, for errors, as in "exclude".

    Raises:
        SettingsError: when the name has another ending.
        InputError: when the content does not have that format, or a value is not an id.
        StorageError: when the file cannot be read.
    """
    suffix, where = PurePosixPath(uri).suffix.lower(), f"{setting}: {uri}"
    if suffix not in {".txt", ".jsonl", ".csv", ".parquet"}:
        raise SettingsError(f"{where} ends in '{suffix}'", allowed=_FORMATS, action="convert or rename it")
    data = read_bytes(locate(uri))
    try:
        if suffix == ".txt":
            ids = pa.array([line.strip() for line in text_of(data, where).split("\n") if line.strip()], pa.string())
        elif suffix == ".jsonl":
            ids = _of_rows(where, data)
        else:
            ids = _of_table(where, suffix, data)
    except (pa.ArrowException, OSError) as error:  # pyarrow raises OSError for damaged pages, too
        raise InputError(f"{where} cannot be read: {error}", allowed=_FORMATS, action="correct the file") from None
    return np.unique(pack(ids, where=where))


def _of_rows(where: str, data: bytes) -> pa.Array:
    ids = []
    for place, value in json_rows(data, where):
        identity = value.get("id") if isinstance(value, dict) else None
        if not isinstance(identity, str):
            raise InputError(f"{place} has no field `id` with text", allowed='{"id": "...", ...}')
        ids.append(identity)
    return pa.array(ids, pa.string())


def _of_table(where: str, suffix: str, data: bytes) -> pa.Array:
    import pyarrow.csv
    import pyarrow.parquet as pq

    if suffix == ".parquet":
        table = pq.read_table(io.BytesIO(data))
    else:
        check_encoding(data, where)
        # An id of digits only would be read as a number.
        options = pyarrow.csv.ConvertOptions(column_types={"id": pa.string()})
        table = pyarrow.csv.read_csv(io.BytesIO(data), convert_options=options)
    if "id" not in table.column_names:
        raise InputError(
            f"{where} has no column 'id'; it has {', '.join(table.column_names)}", action="rename the column to 'id'"
        )
    return table["id"].combine_chunks().cast(pa.string())
