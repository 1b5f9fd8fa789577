"""What an artifact holds, in few numbers that machines of every kind agree on.

Exact values (texts, whole numbers, truth values, keys) become a hash. Floats become their count, mean, spread, ends and
a mean weighted by place, which are compared with a tolerance: the last bits differ between processors.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tamis.core.artifacts import Manifest
from tamis.core.settings import hash_of
from tamis.reporting.sections import cost

TOLERANCE = 2e-3  # of a float summary, relative to the largest value
CHAOTIC_TOLERANCE = 5e-2  # the same, where such bits change single results
_UNSTABLE = re.compile(r"seconds|per_s$|memory|bytes|created|started|duration|time|path|file|env_info", re.IGNORECASE)
_TIMES = re.compile(r"\d{4}-\d\d-\d\d(T[\d:+.]+)?|\d\d:\d\d:\d\d|\d+\.\d+\.\d+(\w*)|[\d.,]+\s(s|ms|min|h|MiB|GiB)\b")
_HASHES = re.compile(r"\b[0-9a-f]{16,}\b")  # of artifacts and models, on pages
_DECIMALS = re.compile(r"-?\d+\.\d+(?:e[-+]?\d+)?")
_NUMBERS, _UNITS = re.compile(r"\d+([.,]\d+)*"), re.compile(r"#\s?(s|ms|min|h|KiB|MiB|GiB)\b")
_OF_MODELS = re.compile(r"sha256:[0-9a-f]{64}")


def digest(folder: Path, manifest: Manifest, hidden: Iterable[str]) -> dict[str, Any]:
    """The artifact at `folder` by file and column; texts of `hidden` (folders, addresses) are left out."""
    told = {"rows": manifest.rows, "facts": _json(_without_unstable(manifest.facts), hidden)}
    for file in sorted(manifest.files, key=lambda file: file.name):
        path = folder / file.name
        read = _READERS.get(path.suffix)
        told[file.name] = read(path, hidden) if read else "there"
    return told


def differences(seen: Any, expected: Any, where: str = "", *, chaotic: bool = False) -> list[str]:
    """Places where two digests differ by more than the tolerance.

    If `chaotic`, the output is that of an algorithm in which the last bits of a float can change single results. Exact
    values are then not compared, and floats and their counts with a wider tolerance.
    """
    if isinstance(seen, dict) and isinstance(expected, dict):
        names = sorted((seen.keys() | expected.keys()) - ({"exact"} if chaotic else set()))
        pairs = ((seen.get(name), expected.get(name), f"{where}/{name}") for name in names)
        return [line for one, other, place in pairs for line in differences(one, other, place, chaotic=chaotic)]
    if isinstance(seen, list) and isinstance(expected, list) and len(seen) == len(expected):
        tolerance = CHAOTIC_TOLERANCE if chaotic else TOLERANCE
        scale = max([abs(value) for value in (*seen[1:], *expected[1:])], default=0.0)
        counted = abs(seen[0] - expected[0]) <= (tolerance * expected[0] if chaotic else 0)
        if counted and np.allclose(seen[1:], expected[1:], rtol=tolerance, atol=tolerance * scale + 1e-9):
            return []
    elif seen == expected:
        return []
    return [f"{where}: {seen}, was {expected}"]


def _floats(values: Iterable[float | None]) -> list[float]:
    """Count, mean, spread, least, largest, and mean weighted by place."""
    known = [(i, float(value)) for i, value in enumerate(values) if value is not None and math.isfinite(value)]
    if not known:
        return [0.0]
    places, array = np.array([i for i, _ in known]), np.array([value for _, value in known])
    weighted = float(np.mean(array * np.cos(places)))
    found = [len(array), array.mean(), array.std(), array.min(), array.max(), weighted]
    return [float(f"{value:.6g}") for value in found]


def _json(value: Any, hidden: Iterable[str]) -> dict[str, Any]:
    """Hash of all but the floats, and the floats in the order of their places."""
    floats: list[float] = []

    def exact(part: Any) -> Any:
        if isinstance(part, dict):
            return {str(name): exact(part[name]) for name in sorted(part, key=str)}
        if isinstance(part, (list, tuple)):
            return [exact(item) for item in part]
        if isinstance(part, float) and math.isfinite(part):
            floats.append(part)
            return "float"
        return _text(part, hidden) if isinstance(part, str) else str(part)

    return {"exact": hash_of(exact(value))[:16], "floats": _floats(floats)}


def _without_unstable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_unstable(part) for name, part in value.items() if not _UNSTABLE.search(str(name))}
    return [_without_unstable(part) for part in value] if isinstance(value, list) else value


def _text(text: str, hidden: Iterable[str]) -> str:
    for part in hidden:
        text = text.replace(part, "…")
    return _OF_MODELS.sub("…", _TIMES.sub("…", text))


def _table(path: Path, hidden: Iterable[str]) -> dict[str, Any]:
    table = pq.read_table(path)
    told: dict[str, Any] = {"schema": hash_of(str(table.schema.remove_metadata()))[:16]}
    for name in table.column_names:
        if _UNSTABLE.search(name):
            continue
        column = table[name]
        floating = pa.types.is_floating(column.type)
        told[name] = _floats(column.to_pylist()) if floating else _json(column.to_pylist(), hidden)
    return told


def _array(path: Path, _: Iterable[str]) -> Any:
    array = np.load(path, allow_pickle=False)
    flat = array.ravel()
    summary = _floats(flat.astype(float)) if np.issubdtype(array.dtype, np.floating) else hash_of(flat.tolist())[:16]
    return {"shape": str((array.shape, array.dtype)), "values": summary}


def _lines(path: Path, hidden: Iterable[str]) -> Any:
    return _json([_without_unstable(json.loads(line)) for line in path.read_text().splitlines()], hidden)


def _object(path: Path, hidden: Iterable[str]) -> Any:
    return _json(_without_unstable(json.loads(path.read_text())), hidden)


def _words(path: Path, hidden: Iterable[str]) -> str:
    return str(hash_of(_HASHES.sub("…", _text(path.read_text(), hidden)))[:16])


def _records(path: Path, hidden: Iterable[str]) -> dict[str, Any]:
    """A table in text: a hash of it without its decimals, and these as floats."""
    text = _HASHES.sub("…", _text(path.read_text(), hidden))
    decimals = [float(found) for found in _DECIMALS.findall(text)]
    return {"exact": hash_of(_DECIMALS.sub("#", text))[:16], "floats": _floats(decimals)}


def _page(path: Path, hidden: Iterable[str]) -> str:
    """A page up to its last section, on time and cost, and without numbers; the tables beside it hold the results."""
    text = path.read_text().partition(f'id="{cost.ANCHOR}"')[0]
    words = _NUMBERS.sub("#", _HASHES.sub("…", _text(text, hidden)))
    return str(hash_of(_UNITS.sub("#", words))[:16])


def _weights(path: Path, _: Iterable[str]) -> dict[str, Any]:
    from safetensors.torch import load_file

    tensors = load_file(path)
    shapes = {name: [str(tensor.dtype), list(tensor.shape)] for name, tensor in sorted(tensors.items())}
    norms = [float(tensors[name].float().norm()) for name in sorted(tensors)]
    return {"tensors": hash_of(shapes)[:16], "norms": _floats(norms)}


_READERS: dict[str, Callable[[Path, Iterable[str]], Any]] = {
    ".parquet": _table,
    ".npy": _array,
    ".jsonl": _lines,
    ".json": _object,
    ".html": _page,
    ".md": _words,
    ".csv": _records,
    ".jinja": _words,
    ".safetensors": _weights,
}
