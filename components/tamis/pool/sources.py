"""Resolving sources: from a recipe to a data set, from a path to files, with fingerprints of the content."""

from __future__ import annotations

import glob
import logging
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field

from tamis.core import storage
from tamis.core.artifacts import MANIFEST, Artifact
from tamis.core.errors import InputError, SettingsError, StorageError, explained_os_errors
from tamis.core.hub import Wanted
from tamis.core.saved import DESCRIPTIONS, is_saved, load_saved
from tamis.core.settings import Settings, parse
from tamis.core.storage import Location
from tamis.pool import hub, recipes
from tamis.pool.openings import FORMATS, format_of
from tamis.pool.readers import how_to_read, reader_of
from tamis.pool.settings import PoolSettings, Source

log = logging.getLogger(__name__)
# Names of splits in the names of files, as on the Hub: data/test-00000-of-00001.parquet
_SPLIT = re.compile(r"(?<![^\W_])(train|test|validation|valid|val|dev)(?![^\W_])", re.IGNORECASE)
_COUNTED = 1 << 23  # bytes of JSONL read at a time to count rows


class Recipe(Settings):
    """A known data set: where it is, how to read it, and how many of its samples the paper used."""

    version: int = Field(ge=1)
    about: str
    samples: int = Field(ge=1)
    source: dict[str, Any]


@dataclass(frozen=True)
class Resolved:
    """A source with everything that is known before its rows are read.

    Attributes:
        source: the source's settings, with those of its recipe.
        files: names and locations of its files, in reading order; empty for a data set on the Hub.
        fingerprints: identifiers of its content: hashes by file name, or the revision by the data set's name.
        recipe: its recipe, if it has one.
    """

    source: Source
    files: tuple[tuple[str, Location], ...]
    fingerprints: dict[str, str]
    recipe: Recipe | None = None


def resolve(source: Source) -> Resolved:
    """Find the files or the data set of `source`, and fingerprints of the content.

    Raises:
        SettingsError: when the settings contradict the source's recipe.
        InputError: when a path has no file that can be read.
        StorageError: when a path does not exist.
    """
    source, recipe = filled_in(source)
    if source.path is not None and is_saved(source.path):
        source = source.model_copy(update={"path": None, "dataset": source.path})
    if source.dataset is not None:
        if source.revision is not None and Path(source.dataset).is_dir():
            raise SettingsError(
                f"source '{source.name}': 'revision' cannot be used with {source.dataset}, which is a local folder",
                action="leave out `revision`",
            )
        revision = hub.revision_of(source.dataset, source.revision)
        return Resolved(source, (), {source.dataset: revision}, recipe)
    assert source.path is not None  # exactly one of the three is given
    with explained_os_errors(f"reading {source.path}"):
        files = files_at(source.path)
        return Resolved(source, tuple(files), {name: storage.fingerprint(str(place)) for name, place in files})


def filled_in(source: Source) -> tuple[Source, Recipe | None]:
    """The settings of `source` with those of its recipe, and the recipe, if there is one.

    Raises:
        SettingsError: when the settings contradict the source's recipe.
    """
    if source.recipe is None:
        return source, None
    recipe = recipe_of(source.recipe)
    own = source.model_dump(by_alias=True, exclude_unset=True, exclude={"recipe"})
    known = dict(recipe.source)
    if "limit" in own and own["limit"] is None:
        known.pop("seed", None)  # it draws the recipe's limit, which the user removes
    return parse(Source, known | own, where=f"source '{source.name}' (recipe {source.recipe})"), recipe


def recipe_of(name: str) -> Recipe:
    """The recipe called `name`."""
    import yaml

    return parse(Recipe, yaml.safe_load(recipes.text_of(name)), where=f"recipe {name}")


def files_at(path: str) -> list[tuple[str, Location]]:
    """The readable files at `path`: a file, all files in a folder, the matches of a glob, or the parts of a pool.

    Returns:
        Names relative to the folder, with `/` on every system, and locations; sorted by name.

    Raises:
        InputError: when there are files, but none in a known format.
        StorageError: when the path does not exist.
    """
    location = storage.locate(path)
    path = path if storage.is_remote(path) else str(location)
    if storage.exists(location / MANIFEST):
        names = [file.name for file in Artifact.open(path, "pool").manifest.files if file.name.startswith("part-")]
        return [(name, location / name) for name in sorted(names)]
    if storage.is_remote(path):
        found = [(storage.below(location, file), file) for file in storage.files_below(location)]
    elif Path(path).exists():
        found = [(storage.below(Path(path), file), file) for file in storage.files_below(Path(path))]
    else:
        base = _base_of(path)
        matched = [Path(file) for file in glob.glob(path, recursive=True)]
        found = [(storage.below(base, file), file) for file in matched if file.is_file()]
    if not found:
        problem = f"{storage.looked_for(path)} does not exist"
        raise StorageError(problem, allowed=_beside(path), action="check the path", permanent=True)
    alone = len(found) == 1  # a single named file is always data
    saved = {PurePosixPath(name).parent for name, _ in found if PurePosixPath(name).name in DESCRIPTIONS}
    files = sorted((name, file) for name, file in found if _is_data(name, alone, saved))
    others = sorted({name for name, _ in found} - {name for name, _ in files})
    if not files:
        raise InputError(
            f"{path} has no file that can be read; it has {', '.join(others[:5])}",
            allowed=f"files that end in {FORMATS}",
            action="give each folder that `save_to_disk` wrote as a source of its own" if saved else "",
        )
    if others:
        log.warning("%s: %d files are ignored (not %s): %s", path, len(others), FORMATS, ", ".join(others[:5]))
    if len(splits := {split[0].lower() for name, _ in files if (split := _SPLIT.search(name))}) > 1:
        log.warning(
            "%s: files of several splits are read: %s. To read one split, give only its files, or give the folder as "
            "`dataset` with `split`",
            path,
            " and ".join(sorted(splits)),
        )
    return files


def count_rows(path: str, settings: PoolSettings) -> int:
    """Number of rows of the local files at `path`. JSONL and Parquet are counted without parsing rows.

    Raises:
        InputError: when a file cannot be read.
        StorageError: when the path does not exist.
    """
    if is_saved(path):
        return int(load_saved(Wanted(path, path))[0].num_rows)
    return sum(_rows_of(Path(str(file)), settings) for _, file in files_at(path))


def _rows_of(file: Path, settings: PoolSettings) -> int:
    if file.name.endswith(".jsonl"):
        with explained_os_errors(f"reading {file}"), file.open("rb") as lines:
            count, empty = 0, True  # non-blank lines; whether the line at the end of a block is blank so far
            while block := lines.read(_COUNTED):
                first, *others = block.split(b"\n")
                empty = empty and not first.strip()
                if others:
                    count += not empty
                    *whole, last = others
                    count += sum(1 for line in whole if line.strip())
                    empty = not last.strip()
            return count + (not empty)  # the last line may have no line break
    reader = reader_of(file, how_to_read(settings))
    return reader.total if reader.total is not None else sum(1 for _ in reader.rows([]))


def _is_data(name: str, alone: bool, saved: set[PurePosixPath]) -> bool:
    """Whether a file has rows to read. Files of Arrow below a folder in `saved` are read only as that data set."""
    path, kind = PurePosixPath(name), format_of(name)
    described = path.name in DESCRIPTIONS or (kind == "arrow" and not saved.isdisjoint(path.parents))
    return kind is not None and (alone or not described) and not any(part.startswith(".") for part in path.parts)


def _base_of(pattern: str) -> Path:
    """The part of a glob before its first wildcard."""
    base = Path(pattern)
    while glob.has_magic(str(base)):
        base = base.parent
    return base


def _beside(path: str) -> str:
    """The content of the folder where `path` was looked for, for an error."""
    if storage.is_remote(path):
        return "an existing file or folder"
    folder = _base_of(path).parent if _base_of(path) == Path(path) else _base_of(path)
    if not folder.is_dir():
        return f"a path that exists; there is no folder {folder} either"
    names = sorted(file.name for file in folder.iterdir() if file.is_dir() or format_of(file.name))
    return f"in {folder}: {', '.join(names[:10]) or 'nothing that can be read'}"
