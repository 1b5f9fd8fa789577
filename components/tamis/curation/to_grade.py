"""`tamis grade next`: a sheet with the samples whose human grades would be most informative.

By default half of them are a random core, from which the errors in the whole pool can be estimated. The others have the
most doubtful curated scores, from which a model of the raters learns most.
"""

from __future__ import annotations

import json
import logging
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError, SettingsError, StorageError
from tamis.core.ids import Keys, pack, positions
from tamis.core.scales import Scale
from tamis.core.settings import parse
from tamis.core.steps import Uri
from tamis.core.storage import exists, locate, write_bytes
from tamis.curation.grade_draw import Drawn, Scores, draw, read_scores
from tamis.curation.grade_files import graded_in_pool, read_ids
from tamis.curation.grade_sheets import WRITERS, sheet
from tamis.curation.settings import GradesSettings

log = logging.getLogger(__name__)
_ROWS = 100_000  # rows of a table read together


def next_to_grade(
    run: Uri,
    *,
    size: int = 100,
    rater: str | None = None,
    out: Uri | None = None,
    random_share: float = 0.5,
    graded: Sequence[str] = (),
    seed: int = 0,
    blind: bool = False,
) -> str:
    """Write a sheet of samples to grade: `to-grade.csv` in the run's folder, or `out` (.csv or .jsonl).

    Args:
        run: a run's folder, with its pool and its curation; local or in object storage.
        size: number of samples; fewer if fewer are left.
        rater: the rater whose scores are used; by default the only rater, or `combined`.
        out: the file to write; it must not exist.
        random_share: share of samples that are drawn at random, 0..1.
        graded: files with a column `id`, such as earlier sheets; their samples, and those with a grade in the curation,
            are left out.
        seed: seed of the draw.
        blind: omit the raters' and curated scores, so that they do not influence graders.

    Returns:
        What was written and what to do next; the last line names the file.

    Raises:
        ArtifactError: when the run's pool or curation is not finished.
        SettingsError: when an option is out of range or names something unknown.
        InputError: when the pool lacks samples of the curation, or no sample is left to grade.
        StorageError: when the file exists already, or a file cannot be read or written.
    """
    if size < 1:
        raise SettingsError(f"--size {size}", allowed="1 or more")
    if not 0 <= random_share <= 1:
        raise SettingsError(f"--random-share {random_share:g}", allowed="0 to 1")
    if seed < 0:
        raise SettingsError(f"--seed {seed}", allowed="0 or more")
    target = locate(out if out is not None else f"{str(run).rstrip('/')}/to-grade.csv")
    if (kind := Path(str(target)).suffix.lower()) not in WRITERS:
        raise SettingsError(f"--out {target}", allowed=f"a file that ends in {' or '.join(WRITERS)}")
    if exists(target):
        raise StorageError(
            f"{target} already exists and may contain grades",
            action="choose another file with --out, and pass this one with --graded to leave its samples out",
            permanent=True,
        )
    with tempfile.TemporaryDirectory(prefix="tamis-") as temporary:
        cache = Path(temporary)
        pool, curation = (
            Artifact.open(f"{str(run).rstrip('/')}/{name}", name, cache=cache) for name in ("pool", "curation")
        )
        everything = read_scores(curation, rater)
        done = _graded(curation, pool, graded, cache)
        scores = everything.of(np.flatnonzero(positions(everything.keys, done) < 0))
        if not len(scores.keys):
            raise InputError(
                f"none of the {len(everything.keys)} samples of the rater '{everything.rater}' is left to grade",
                action="use the existing grades",
            )
        names, sources = sources_of(pool, scores.keys)
        drawn = draw(scores, sources, size=size, random_share=random_share, seed=seed)
        rows = sheet(pool, scores, drawn, [names[code] for code in sources[drawn.rows].tolist()], blind=blind)
    write_bytes(target, WRITERS[kind](rows))
    files = list(dict.fromkeys([*graded, *_files_of(curation), str(target)]))
    return _told(scores, drawn, size, len(everything.keys), target, files, _settings_of(curation))


def sources_of(pool: Artifact, keys: Keys) -> tuple[list[str], NDArray[np.intp]]:
    """Names of the pool's sources, sorted, and for each of `keys` (n,) the index of its source, (n,).

    Raises:
        InputError: when the pool lacks a sample.
    """
    blocks, parts = [], []
    for batch in pool.batches(["id", "source"], rows=_ROWS):
        blocks.append(pack(batch["id"], where=f"{pool.location}"))
        parts.append(batch["source"].dictionary_encode())
    places = positions(keys, np.concatenate(blocks))
    if missing := int((places < 0).sum()):
        raise InputError(
            f"{pool.location}: {missing} of the curation's {len(keys)} samples are not in this pool",
            action="use the folder of one run, or run it again",
        )
    found = pa.chunked_array(parts).unify_dictionaries().combine_chunks()
    seen = found.dictionary.to_pylist()
    names = sorted(seen)
    order = np.array([names.index(name) for name in seen])
    return names, order[found.indices.to_numpy()[places]]


def _settings_of(curation: Artifact) -> GradesSettings | None:
    """The settings of the grades that the curation used."""
    used = curation.manifest.config.get("grades")
    return None if used is None else parse(GradesSettings, used, where=f"{curation.location}, grades")


def _files_of(curation: Artifact) -> tuple[str, ...]:
    settings = _settings_of(curation)
    return () if settings is None else settings.paths


def _graded(curation: Artifact, pool: Artifact, files: Sequence[str], scratch: Path) -> Keys:
    """The samples that have a grade or are on a sheet."""
    found: set[str] = set()
    for path in files:
        found |= read_ids(path, scratch)
    settings = _settings_of(curation)
    if settings is not None and settings.column is not None:
        found |= graded_in_pool(pool, settings.column)
    for path in _files_of(curation):
        try:
            found |= read_ids(path, scratch, settings, pool)
        except StorageError as error:
            log.warning(
                "the curation used grades from %s, which cannot be read now (%s): pass the file with --graded, or "
                "samples that already have a grade may be drawn",
                path,
                error.problem,
            )
    return pack(pa.array(sorted(found), pa.string()), where=f"ids in {', '.join(files) or 'the grades'}")


def _setting(files: Sequence[str], used: GradesSettings | None) -> str:
    """The setting with which a run reads these files in the same way as the last run read its grades."""
    paths: str | list[str] = files[0] if len(files) == 1 else list(files)
    kept = {} if used is None else used.model_dump(exclude_none=True, exclude={"column", "path"})
    if not kept and (used is None or used.column is None):
        prefix = "curation.grades.path="
        return f"{prefix}{paths}" if isinstance(paths, str) else shlex.quote(f"{prefix}{json.dumps(paths)}")
    return shlex.quote(f"curation.grades={json.dumps({'path': paths, **kept})}")


def _told(
    scores: Scores,
    drawn: Drawn,
    size: int,
    samples: int,
    target: Any,
    files: Sequence[str],
    used: GradesSettings | None,
) -> str:
    scale = Scale() if used is None or used.scale is None else used.scale
    steps = "" if scale.step is None else f" by {scale.step:g}"
    doubtful = len(drawn.rows) - drawn.random
    lines = [
        f"{len(drawn.rows):,} of {samples:,} samples scored by '{scores.rater}': {drawn.random:,} drawn at random, "
        f"{doubtful:,} with the most doubtful scores; {samples - len(scores.keys):,} have a grade or are on a sheet"
    ]
    if len(drawn.rows) < size:
        lines.append(f"{size:,} were requested; no more are left")
    if not np.isfinite(scores.loss).any():
        lines.append("the curation has no confidences, so all samples were drawn at random")
    lines += [
        f"Fill in the column `grade`, {scale.lowest:g} (worst) to {scale.highest:g} (best){steps}, and `grader` if "
        f"several people grade; then run again with --set {_setting(files, used)}",
        f"to grade: {target}",
    ]
    return "\n".join(lines)
