"""Checks the data that a run reads: files, their first rows, ratings to import, grades, and the sizes of subsets."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from tamis.core.errors import InputError, SettingsError, StorageError, TamisError
from tamis.core.hub import from_cache, is_prepared
from tamis.core.saved import is_saved
from tamis.core.storage import exists, is_remote, locate, looked_for
from tamis.curation.grades import check_files
from tamis.curation.settings import GradesSettings
from tamis.pool.checking import FirstRows, check_own_ids, look_at, look_into
from tamis.pool.hub import DatasetReader, opened_as_stream
from tamis.pool.settings import PoolSettings, Source
from tamis.pool.sources import count_rows, files_at, filled_in
from tamis.rating.importing import check_rows
from tamis.rating.rating_files import checked_file
from tamis.rating.settings import ImportedRater, RatingSettings
from tamis_pipelines.checks.check import Check, no_file
from tamis_pipelines.checks.fields import referring
from tamis_pipelines.checks.models import DEMO, MAKE_DEMO
from tamis_pipelines.pool_size import LARGE
from tamis_pipelines.settings import RunSettings


def data(settings: RunSettings) -> Iterator[Check]:
    """Check everything that is read from files."""
    yield from (_data(where, path) for where, path in referring(settings, "data"))
    yield from (_folder(where, path) for where, path in referring(settings, "folder"))
    rows = _rows(settings.pool)
    found = [_first_rows(source, settings.pool) for source in settings.pool.sources]
    found += [_ratings(rater, settings.pool, rows) for rater in settings.raters]
    found += [_field_of_ratings(rater, settings.pool) for rater in settings.raters]
    if settings.curation.grades is not None:
        found += [_grades(settings.curation.grades), _field_of_grades(settings.curation.grades, settings.pool)]
    yield from (check for check in found if check is not None)
    yield from _own_ids(settings)
    yield from _sizes(settings, rows)


def _data(where: str, path: str) -> Check:
    action = f"correct {where}, or put the data there"
    try:
        found = exists(locate(path)) or (not is_remote(path) and bool(glob.glob(path)))
    except TamisError as error:
        return Check.refused(where, error)
    if not found and re.fullmatch(r"[\w.-]+/[\w.-]+", path):
        action = "give a file, local or in object storage"
        action += "; for a data set on the Hugging Face Hub, use `dataset`" if where.startswith("pool.") else ""
    if not found and path.startswith(DEMO):
        action = MAKE_DEMO
    seen = path if found else f"there is nothing at {looked_for(path)}"
    return Check.of(where, found, seen, action, error=StorageError)


def _folder(where: str, path: str) -> Check:
    found = Path(path).is_dir()
    seen = path if found else f"there is no folder {looked_for(path)}"
    return Check.of(where, found, seen, f"correct {where}, or create the folder", error=SettingsError)


def _first_rows(source: Source, settings: PoolSettings) -> Check | None:
    """Check that the first rows of a source on this machine become samples."""
    where = f"pool.sources.{source.name}"
    try:
        source, _ = filled_in(source)
        found = look_into(source, settings) if _in_files(source) else _first_rows_of_dataset(source)
        if isinstance(found, str):
            return Check(where, "note", f"not checked: {found}", "the run will read it; make sure that it can")
        if found is not None:
            found.check_shares(source.name, settings)
            found.check_kept(source)
    except StorageError:
        return None  # another check reports that nothing is there
    except TamisError as error:
        return Check.refused(where, error)
    if found is None:
        return None
    if found.rejected or found.side.lost:
        skipped = ["unusable rows are skipped; correct them if you need them"] if found.rejected else []
        lost = ["samples are read without these fields; `keep` or correct the fields if you need them"]
        return Check(where, "note", str(found), ". ".join([*skipped, *(lost if found.side.lost else [])]))
    if unseen := found.not_seen(source):
        action = "check that later rows have it; if no row has, the run fails"
        return Check(where, "note", f"{found}; none of these rows has {', '.join(unseen)}, which `keep` names", action)
    return Check(where, "ok", str(found))


def _in_files(source: Source) -> bool:
    place = source.path or str(source.dataset)
    return not is_remote(place) and (source.dataset is None or is_saved(place))


def _first_rows_of_dataset(source: Source) -> FirstRows | str | None:
    """Return the first rows of a data set in this machine's cache or in a folder; otherwise why they were not read.

    Raises:
        InputError: as `look_at`, and when a folder does not have the split or configuration in the settings.
    """
    if source.path is not None:
        return f"{source.path} is in object storage"
    name = str(source.dataset)
    if find_spec("datasets") is None:
        return None  # another check reports it
    local = Path(name).is_dir()
    if not local and not is_prepared(name):
        return f"{name} is not in this machine's Hugging Face cache"
    with from_cache():
        try:
            reader = opened_as_stream(source) if local else DatasetReader(source, "")
        except (StorageError, InputError) as error:
            if local and isinstance(error, InputError):
                raise
            return error.problem
        return look_at(source, [(name, reader)])


def _ratings(rater: RatingSettings, pool: PoolSettings, rows: Mapping[str, int | None]) -> Check | None:
    """Check that ratings to import can be used, and show their scores; large files are left to the run."""
    if not isinstance(rater, ImportedRater) or is_remote(rater.backend.path):
        return None
    backend = rater.backend
    where = f"raters.{rater.name}.backend"
    if Path(backend.path).is_dir():
        return no_file(where, backend.path)
    if not Path(backend.path).is_file() or Path(backend.path).stat().st_size > LARGE:
        return None
    in_part = {source.name for source in pool.sources if source.limit is not None or source.where}
    try:
        file = checked_file(rater, all_in_pool=backend.by == "row" and backend.key is None and not in_part)
        check_rows(file, {name: None if name in in_part else count for name, count in rows.items()})
    except TamisError as error:
        return Check.refused(where, error)
    seen = f"{file.usable:,} ratings in {file.rows:,} rows; {file.seen}, on the scale from {file.scale}"
    seen += f"; {file.bad:,} rows cannot be used" if file.bad else ""
    if file.bad > rater.max_failure_share * file.rows:
        action = "correct the unusable rows; the run fails if too many of them belong to samples in the pool"
        return Check(where, "note", seen, action)
    if file.lower_half_only:
        return Check(where, "note", seen, "check that this is the scale of these scores")
    return Check.of(where, True, seen)


def _rows(pool: PoolSettings) -> dict[str, int | None]:
    """Return the number of rows in each source; None if it is not known before the run."""
    rows: dict[str, int | None] = dict.fromkeys(source.name for source in pool.sources)
    if _bytes_of(pool):
        for source in pool.sources:
            with suppress(TamisError):  # another check reports that they cannot be read
                rows[source.name] = count_rows(str(source.path), pool)
    return rows


def _field_of_ratings(rater: RatingSettings, pool: PoolSettings) -> Check | None:
    """Check that the sources keep the field by which imported ratings are matched to samples."""
    if not isinstance(rater, ImportedRater) or rater.backend.by != "metadata":
        return None
    backend = rater.backend
    return _kept(f"raters.{rater.name}.backend.key", backend.field or backend.key, pool, "rating")


def _grades(grades: GradesSettings) -> Check | None:
    """Check that files of human grades can be read as a run reads them; large and remote ones are left to the run."""
    for path in grades.paths:
        if not is_remote(path) and Path(path).is_dir():
            return no_file("curation.grades", path)
    if not grades.paths or any(is_remote(path) or not Path(path).is_file() for path in grades.paths):
        return None
    if sum(Path(path).stat().st_size for path in grades.paths) > LARGE:
        return None
    try:
        return Check.of("curation.grades", True, f"{check_files(grades, Path()):,} grades")
    except TamisError as error:
        return Check.refused("curation.grades", error)


def _field_of_grades(grades: GradesSettings, pool: PoolSettings) -> Check | None:
    """Check that the sources keep the field that contains grades, or by which grades are matched to samples."""
    if grades.pool_field is None:
        return None
    name = "key" if grades.column is None else "column"
    return _kept(f"curation.grades.{name}", grades.pool_field, pool, "grade")


def _kept(where: str, field: str | None, pool: PoolSettings, lost: str) -> Check | None:
    lacking = [source.name for source in pool.sources if source.recipe is None and field not in source.keep]
    if not lacking:
        return None
    seen = f"the sources {', '.join(lacking)} do not keep the field '{field}', so their samples get no {lost}"
    level: Literal["note", "failed"] = "failed" if len(lacking) == len(pool.sources) else "note"
    return Check(where, level, seen, f"add keep: [{field}] to these sources")


def _own_ids(settings: RunSettings) -> Iterator[Check]:
    """Check that the fields by which ratings or grades are matched to samples differ between samples."""
    backends = [rater.backend for rater in settings.raters if isinstance(rater, ImportedRater)]
    fields = {backend.field or backend.key for backend in backends if backend.by == "metadata"}
    if settings.curation.grades is not None and settings.curation.grades.column is None:
        fields.add(settings.curation.grades.pool_field)
    if not _bytes_of(settings.pool):
        return
    for field in sorted(field for field in fields if field is not None):
        try:
            check_own_ids(settings.pool, field)
        except InputError as error:
            yield Check.refused(f"pool: {field}", error)


def _bytes_of(pool: PoolSettings) -> int:
    """Return the bytes of the pool's files; 0 if they are large or not all here, so that they are left to the run."""
    paths = [source.path for source in pool.sources if source.path and not is_remote(source.path)]
    try:
        size = sum(Path(str(file)).stat().st_size for path in paths for _, file in files_at(path))
    except TamisError:
        return 0  # another check reports that data are missing
    return size if len(paths) == len(pool.sources) and size <= LARGE else 0


def _sizes(settings: RunSettings, rows: Mapping[str, int | None]) -> Iterator[Check]:
    """Report subsets that are larger than the pool can be, if the rows of all its sources are known."""
    counts = [count for count in rows.values() if count is not None]
    for cell in settings.cells if len(counts) == len(rows) else ():
        if cell.subset.size is not None and cell.subset.size > sum(counts):
            seen = f"its size is {cell.subset.size:,}, but the pool has at most {sum(counts):,} samples"
            yield Check.of(f"subset {cell.name}", False, seen, "choose a smaller size, or add sources")
