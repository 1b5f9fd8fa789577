"""Importing ratings that exist already: rows of a file, matched to the pool's samples."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError, UnparsableError
from tamis.core.own_ids import ids_by_field, some
from tamis.core.steps import Step
from tamis.core.tables import POSSIBLE, RATINGS, PartsWriter
from tamis.core.tabular import integer_of, key_of
from tamis.rating.fitting import check_texts, text_columns
from tamis.rating.rating_files import RatingsFile, key_column, refuse_repeated_rows
from tamis.rating.settings import ImportedRater
from tamis.rating.summary import Summary

log = logging.getLogger(__name__)
_BLOCK = 10_000  # rows written at a time
_BETWEEN = "\x1f"  # between a source's name and a row number in a key
Keys = Sequence[str | None]


def import_ratings(step: Step[ImportedRater]) -> None:
    """Write one rating per sample of the pool, read from the file in the settings.

    Raises:
        InputError: when the file cannot be used: a column is missing, a key occurs twice, no row matches a sample, its
            texts differ from the samples, or more than `max_failure_share` of the matched rows have a score outside
            the scale.
        StorageError: when the file cannot be read.
    """
    settings, pool = step.settings, step.input("pool")
    texts = text_columns(pool) if settings.backend.by == "row" else {}
    file = RatingsFile(settings.backend, step.scratch, [column for columns in texts.values() for column in columns])
    keys, wanted = _MATCHERS[settings.backend.by](file, pool)
    refuse_repeated_rows(file, keys, _shown)
    places = pc.index_in(pa.array(wanted, pa.string()), value_set=pa.array(keys, pa.string()), skip_nulls=True)
    rows = pc.fill_null(places, -1).to_numpy()
    matched = int((rows >= 0).sum())
    if not matched:
        own = "; for your own ids: set `keep: [id]` on the pool's source, then `by: metadata` and `key: id` here"
        raise InputError(
            f"{file.path}: no row matches a sample of the pool; its keys look like {some(keys, _shown)}, the "
            f"pool's keys look like {some(wanted, _shown)}",
            action=f"check backend.by, backend.key and backend.source{own if settings.backend.by == 'id' else ''}",
        )
    shares = matched / len(keys), matched / len(wanted)
    if max(shares) < settings.backend.min_matched_share:
        raise InputError(
            f"{file.path}: only {matched:,} of {len(keys):,} rows match one of the pool's {len(wanted):,} samples; its "
            f"keys look like {some(keys, _shown)}, the pool's keys look like {some(wanted, _shown)}",
            allowed=f"at least {settings.backend.min_matched_share:.0%} of the rows, or of the samples "
            "(backend.min_matched_share)",
            action="check backend.by, backend.key and backend.source, or lower the limit",
        )
    checked, differ = check_texts(file, pool, rows, texts, settings.backend.max_text_mismatch_share)
    summary = Summary()
    ids = pool.table(["id"])["id"].to_pylist()
    with PartsWriter(step.out, RATINGS) as parts:
        for start in range(0, len(ids), _BLOCK):
            block = []
            for sample, row in zip(ids[start : start + _BLOCK], rows[start : start + _BLOCK].tolist(), strict=True):
                rating = file.rating(sample, row)
                block.append(rating.row(settings.name))
                summary.add(rating)
            parts.write_rows(block)
    file.refuse_unusable(matched, settings.max_failure_share, summary.table_of_errors())
    if file.lower_half_only:
        log.warning(
            "%s: %s, but the scale is from %s; check that it is the scale of these scores",
            file.path, file.seen, file.scale,
        )  # fmt: skip
    summary.log(settings.name)
    step.rows = parts.rows
    step.facts.update(summary.facts())
    step.facts |= {
        "scale": "classes" if settings.backend.scale == "classes" else str(file.scale),
        POSSIBLE: list(file.ratings),
        "rows_in_file": len(keys),
        "rows_in_pool": matched,
        "rows_without_key": sum(key is None for key in keys),
        "rows_not_in_pool": len(keys) - matched - sum(key is None for key in keys),
        "samples_without_row": len(ids) - matched,
    }
    if checked:
        step.facts |= {"texts_checked": checked, "texts_that_differ": differ}
    for fact in ("rows_without_key", "rows_not_in_pool", "samples_without_row", "texts_that_differ"):
        if step.facts.get(fact):
            why = _not_kept(pool) if fact == "rows_not_in_pool" else ""
            log.warning("rater '%s': %s: %d%s", settings.name, fact.replace("_", " "), step.facts[fact], why)


def _not_kept(pool: Artifact) -> str:
    """How many rows of its sources the pool dropped; ratings of these rows match no sample."""
    names = {"duplicates": "duplicates", "rejected": "rejected", "left_out": "left out by `where`"}
    names["not_drawn"] = "beyond a limit"
    counts = [(int(pool.manifest.facts.get(name, 0)), said) for name, said in names.items()]
    kept_out = ", ".join(f"{count:,} {said}" for count, said in counts if count)
    return f"; this includes rows that the pool dropped: {kept_out}" if kept_out else ""


def _by_id(file: RatingsFile, pool: Artifact) -> tuple[Keys, Keys]:
    column = key_column(file.settings)
    assert column is not None
    return [key_of(value) for value in file.values(column)], pool.table(["id"])["id"].to_pylist()


def check_rows(file: RatingsFile, sources: Mapping[str, int | None]) -> None:
    """Check, before the pool is made, that a file that is matched by rows can belong to the sources.

    Args:
        file: the file to import.
        sources: the sources of the pool, each with its number of rows; None if that is unknown or limited.

    Raises:
        InputError: when a file without row numbers has fewer rows than its source, the numbers seem to start at 1, or
            the settings do not say which source the file rates.
    """
    settings = file.settings
    if settings.by != "row":
        return
    named = _sources_of(file, sorted(sources))
    if settings.key is None:
        _refuse_too_few(file, named, sources)
    elif settings.first_row is None:
        _refuse_from_one(file, settings.key, named, _row_numbers(file, settings.key), sources)


def _by_row(file: RatingsFile, pool: Artifact) -> tuple[Keys, Keys]:
    settings = file.settings
    table = pool.table(["source", "origin"])
    last = table.group_by("source").aggregate([("origin", "max")])
    taken = dict(zip(last["source"].to_pylist(), (n + 1 for n in last["origin_max"].to_pylist()), strict=True))
    named = _sources_of(file, sorted(taken))
    if settings.key is None:
        _refuse_too_few(file, named, taken)
        numbers: Sequence[int | None] = list(_counted(named))
    else:
        facts = pool.manifest.facts.get("sources", {})
        rows = {source: facts.get(source, {}).get("read", count) for source, count in taken.items()}
        numbers = _from_zero(file, settings.key, named, rows)
    pairs = zip(named, numbers, strict=True)
    keys = [None if source is None or row is None else f"{source}{_BETWEEN}{row}" for source, row in pairs]
    wanted = zip(table["source"].to_pylist(), table["origin"].to_pylist(), strict=True)
    return keys, [f"{source}{_BETWEEN}{row}" for source, row in wanted]


def _sources_of(file: RatingsFile, sources: Sequence[str]) -> Keys:
    """The source that each row of the file belongs to."""
    settings = file.settings
    if settings.source is not None and settings.source not in sources:
        raise InputError(f"the pool has no source '{settings.source}'", allowed=", ".join(sources))
    if settings.source is None and settings.source_column is None and len(sources) > 1:
        raise InputError(
            f"the pool has {len(sources)} sources, and the settings do not say which one {file.path} rates",
            allowed=f"backend.source: one of {', '.join(sources)}; or backend.source_column",
        )
    if settings.source_column is not None:
        return [key_of(value) for value in file.values(settings.source_column)]
    return [settings.source or sources[0]] * file.rows


def _refuse_too_few(file: RatingsFile, named: Keys, sources: Mapping[str, int | None]) -> None:
    """Refuse a file with fewer rows than its source: it was cut, or belongs to another source."""
    rows = Counter(named)
    for source, least in sources.items():
        if source in rows and least is not None and least > rows[source]:
            raise InputError(
                f"{file.path} has {rows[source]:,} rows for the source '{source}', but the pool has row {least - 1:,} "
                "of this source (rows start at 0)",
                allowed="one row for each row of the source, in the same order",
                action="use the complete file, or set backend.key to a column with row numbers",
            )


def _counted(sources: Keys) -> Iterator[int]:
    """The row number of each row within its source."""
    seen: dict[str | None, int] = {}
    for source in sources:
        seen[source] = seen.get(source, -1) + 1
        yield seen[source]


def _from_zero(file: RatingsFile, column: str, named: Keys, sources: Mapping[str, int | None]) -> list[int | None]:
    """The row numbers in a column, starting at 0 as in the pool.

    Raises:
        InputError: when a value is not a number or, if the settings do not say where they start, they seem to start
            at 1.
    """
    numbers, first = _row_numbers(file, column), file.settings.first_row
    if first is None:
        _refuse_from_one(file, column, named, numbers, sources)
    if first == 1 and 0 in numbers:
        raise InputError(
            f"{file.path}: the column '{column}' has a row 0",
            allowed="row numbers that start at 1 (backend.first_row: 1)",
            action="set backend.first_row: 0",
        )
    return [None if number is None else number - (first or 0) for number in numbers]


def _refuse_from_one(
    file: RatingsFile, column: str, named: Keys, numbers: Sequence[int | None], sources: Mapping[str, int | None]
) -> None:
    """Refuse row numbers that may start at 1: none is 0, and one is 1 or the number of the source's rows.

    Every rating would otherwise go to the wrong sample, the next one.
    """
    seen: dict[str, list[int]] = {}
    for source, number in zip(named, numbers, strict=True):
        if source is not None and number is not None:
            seen.setdefault(source, []).append(number)
    for source, those in seen.items():
        if min(those) <= 0:
            continue
        rows = sources.get(source)
        if min(those) == 1 or max(those) == rows:
            raise InputError(
                f"{file.path}: the column '{column}' has row numbers from {min(those):,} to {max(those):,} for the "
                f"source '{source}'{'' if rows is None else f', which has {rows:,} rows'}, but no 0: they may start "
                "at 0 or at 1",
                allowed="backend.first_row: 0 or 1, the number of the source's first row",
                action="set backend.first_row; with the wrong one, every rating would go to the next sample",
            )


def _row_numbers(file: RatingsFile, column: str) -> list[int | None]:
    numbers = []
    for row, value in enumerate(file.values(column)):
        try:
            numbers.append(integer_of(column, value))
        except UnparsableError as error:
            raise InputError(
                f"{file.path}: row {row}: {error.problem}", allowed="row numbers of the pool's source"
            ) from None
    return numbers


def _by_metadata(file: RatingsFile, pool: Artifact) -> tuple[Keys, Keys]:
    settings = file.settings
    assert settings.key is not None
    wanted = ids_by_field(pool, settings.field or settings.key)[1]
    return [key_of(value) for value in file.values(settings.key)], wanted


_MATCHERS: dict[str, Callable[[RatingsFile, Artifact], tuple[Keys, Keys]]] = {
    "id": _by_id,
    "row": _by_row,
    "metadata": _by_metadata,
}


def _shown(key: str) -> str:
    return key.replace(_BETWEEN, ", row ")
