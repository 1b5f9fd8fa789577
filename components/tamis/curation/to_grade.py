"""`tamis grade next`: the samples of a run whose human grades would tell most, as a sheet to fill in.

Half of them (by default) are a random core, from which errors of the whole pool can be estimated; the others are those
whose curated score is most doubtful, from which a model of the raters learns most.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError, SettingsError, StorageError
from tamis.core.ids import Keys, pack, positions, tie_breaks, unpack
from tamis.core.samples import Message, as_text
from tamis.core.scales import Scale
from tamis.core.settings import parse
from tamis.core.steps import Uri
from tamis.core.storage import exists, locate, write_bytes
from tamis.curation.classes import UNRATED
from tamis.curation.grade_files import INFORMATIVE, RANDOM, graded_in_pool, read_ids
from tamis.curation.honest import predictions
from tamis.curation.settings import COMBINED, GradesSettings

log = logging.getLogger(__name__)
_ROWS = 100_000  # rows of a table read together
_TEXTS = 2_000  # samples whose texts are in memory at once
_EVEN = 0.25  # of the random core, spread evenly over the strata; the rest by their sizes
_LONGEST_CELL = 32_000  # characters; spreadsheets hold 32,767
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes a cell for a formula by (OWASP, CSV injection)


@dataclass(frozen=True)
class Scores:
    """What curation says of one rater's samples.

    Attributes:
        rater: the rater.
        keys: (n,) samples.
        raw: (n,) score class as rated, -1 where there is none.
        score: (n,) score class after curation, -1 where there is none.
        confidence: (n,) probability that `score` is right, NaN where there is none.
        loss: (n,) at least so many classes is the curated score expected to be off, NaN where nothing is known.
    """

    rater: str
    keys: Keys
    raw: NDArray[np.int8]
    score: NDArray[np.int8]
    confidence: NDArray[np.float64]
    loss: NDArray[np.float64]

    def of(self, rows: NDArray[np.intp]) -> Scores:
        """Some of the samples."""
        return Scores(
            self.rater, self.keys[rows], self.raw[rows], self.score[rows], self.confidence[rows], self.loss[rows]
        )


@dataclass(frozen=True)
class Drawn:
    """The samples to grade.

    Attributes:
        rows: (m,) which samples, in the order in which they are to be graded.
        weights: (m,) 1 / the probability with which each was drawn; NaN for the informative ones.
    """

    rows: NDArray[np.intp]
    weights: NDArray[np.float64]

    @property
    def random(self) -> int:
        """How many were drawn at random."""
        return int(np.isfinite(self.weights).sum())


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
        size: number of samples; fewer where so many are not left.
        rater: whose scores are looked at; the only rater's, or `combined`, if not given.
        out: the file to write; it must not exist.
        random_share: share of them drawn at random, 0..1.
        graded: files with a column `id`, as earlier sheets; what they name is left out, and so is what the curation
            had a grade of.
        seed: of the draw.
        blind: leave out what raters and curation say, so that graders do not lean on it.

    Returns:
        What was written and what to do with it; the last line names the file.

    Raises:
        ArtifactError: when the run's pool or curation is not finished.
        SettingsError: when an option is out of range or names what is not there.
        InputError: when the curation's samples are not the pool's, or none is left to grade.
        StorageError: when a file is there already, or cannot be read or written.
    """
    if size < 1:
        raise SettingsError(f"--size {size}", allowed="1 or more")
    if not 0 <= random_share <= 1:
        raise SettingsError(f"--random-share {random_share:g}", allowed="0 to 1")
    if seed < 0:
        raise SettingsError(f"--seed {seed}", allowed="0 or more")
    target = locate(out if out is not None else f"{str(run).rstrip('/')}/to-grade.csv")
    if (kind := Path(str(target)).suffix.lower()) not in _WRITERS:
        raise SettingsError(f"--out {target}", allowed=f"a file that ends in {' or '.join(_WRITERS)}")
    if exists(target):
        raise StorageError(
            f"{target} is there already, and may have grades in it",
            action="name another file with --out; give this one with --graded, so that its samples are left out",
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
                action="use the grades that there are",
            )
        names, sources = sources_of(pool, scores.keys)
        drawn = draw(scores, sources, size=size, random_share=random_share, seed=seed)
        rows = _sheet(pool, scores, drawn, [names[code] for code in sources[drawn.rows].tolist()], blind=blind)
    write_bytes(target, _WRITERS[kind](rows))
    files = list(dict.fromkeys([*graded, *_files_of(curation), str(target)]))
    return _told(scores, drawn, size, len(everything.keys), target, files, _settings_of(curation))


def read_scores(curation: Artifact, rater: str | None = None) -> Scores:
    """What the curation says of one rater's samples that have a score.

    Raises:
        SettingsError: when the rater is not there, or none is named and there are several without a `combined`.
        InputError: when no sample has a score.
    """
    import pyarrow.parquet as pq

    raters = dict.fromkeys(
        name for batch in curation.batches(["rater"], rows=_ROWS) for name in pc.unique(batch["rater"]).to_pylist()
    )
    chosen = rater or (COMBINED if len(raters) > 1 else next(iter(raters), ""))
    if chosen not in raters:
        seen = f"there is no rater '{chosen}'" if rater else f"{len(raters)} raters have scores, and none is named"
        raise SettingsError(f"{curation.location}: {seen}", allowed=f"--rater, one of {', '.join(raters)}")
    columns = ["id", "rater", "raw_score", "score", "error_probability", "confidence"]
    there = pq.read_schema(curation.parts()[0]).names
    columns += [name for name in ("mean", "posterior") if name in there]
    blocks = []
    for batch in curation.batches(columns, rows=_ROWS):
        scored = pc.or_(pc.is_valid(batch["raw_score"]), pc.is_valid(batch["score"]))
        blocks.append(batch.filter(pc.and_(pc.equal(batch["rater"], chosen), scored)))
    table = pa.Table.from_batches(blocks)
    if not len(table):
        raise InputError(f"{curation.location}: no sample of the rater '{chosen}' has a score")
    raw, score = (_classes(table[name]) for name in ("raw_score", "score"))
    confidence, wrong = (_numbers(table[name]) for name in ("confidence", "error_probability"))
    mean = _numbers(table["mean"]) if "mean" in table.column_names else np.full(len(table), np.nan)
    keys = np.concatenate([pack(chunk, where=f"{curation.location}") for chunk in table["id"].chunks])
    loss = expected_loss(raw, score, confidence, wrong, mean)
    if "posterior" in table.column_names:
        exact = predictions(_lists(table["posterior"]), raw, score)["curated_error"]
        loss = np.where(np.isnan(exact), loss, exact)
    return Scores(chosen, keys, raw, score, confidence, loss)


def expected_loss(
    raw: NDArray[np.int8],
    score: NDArray[np.int8],
    confidence: NDArray[np.float64],
    error_probability: NDArray[np.float64],
    mean: NDArray[np.float64],
) -> NDArray[np.float64]:
    """How many classes the curated score is expected to be off, from below: (n,), NaN where nothing is known.

    The expected distance to the true class is at least the probability that the score is not it, and (Jensen's
    inequality) at least the distance to the mean of the true class.

    Args:
        raw: (n,) as rated, -1 where there is none.
        score: (n,) after curation, -1 where there is none.
        confidence: (n,) probability that `score` is right; where there is none, of the most probable class.
        error_probability: (n,) probability that `raw` is wrong.
        mean: (n,) mean of the true class under the posterior; it counts only where `confidence` is known: a mode
            without a posterior puts the score in its place.
    """
    wrong = np.where(score == raw, error_probability, 1 - confidence)
    wrong = np.where((score == UNRATED) | np.isnan(wrong), 1 - confidence, wrong)
    far = np.where((score == UNRATED) | np.isnan(confidence), np.nan, np.abs(score - mean))
    result: NDArray[np.float64] = np.fmax(wrong, far)
    return result


def sources_of(pool: Artifact, keys: Keys) -> tuple[list[str], NDArray[np.intp]]:
    """Names of the pool's sources, sorted, and (n,) which of them each of `keys` (n,) is from.

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
            action="give the folder of one run, or run it again",
        )
    found = pa.chunked_array(parts).unify_dictionaries().combine_chunks()
    seen = found.dictionary.to_pylist()
    names = sorted(seen)
    order = np.array([names.index(name) for name in seen])
    return names, order[found.indices.to_numpy()[places]]


def draw(scores: Scores, sources: NDArray[np.intp], *, size: int, random_share: float = 0.5, seed: int = 0) -> Drawn:
    """Choose the samples to grade: a random core, and beside it those with the greatest expected loss.

    The core is stratified by source and curated class: three quarters of it go to the strata by their sizes, one
    quarter evenly, so that a rare class is seen too. It is drawn systematically, with known probabilities (Madow,
    1949), so that estimates with its weights are unbiased. Where fewer samples have a known loss than are asked for,
    more are drawn at random instead. Depends on ids and `seed` only, not on the order of the samples.

    Args:
        scores: the samples that may be drawn.
        sources: (n,) source of each.
        size: how many; all where there are not so many.
        random_share: share of the core, 0..1.
        seed: of the draw.
    """
    size = min(size, len(scores.keys))
    known = np.isfinite(scores.loss)
    strata = np.unique(sources * (int(scores.score.max()) + 2) + scores.score + 1, return_inverse=True)[1]
    order = np.lexsort((tie_breaks(scores.keys, seed, "core"), strata))
    start = np.random.default_rng(seed).random()
    core = int(size * random_share + 0.5)
    while True:
        probability = _probabilities(strata, core)
        picked = _systematic(probability[order], start, core, order)
        left = known.copy()
        left[picked] = False
        if (doubtful := int(left.sum())) >= size - core:
            break
        core = size - doubtful
    rest = np.flatnonzero(left)
    ranked = rest[np.lexsort((tie_breaks(scores.keys[rest], seed, "informative"), -scores.loss[rest]))]
    rows = np.concatenate([picked, ranked[: size - core]])
    weights = np.concatenate([1 / probability[picked], np.full(size - core, np.nan)])
    mixed = np.argsort(tie_breaks(scores.keys[rows], seed, "order"))  # who stops early has graded a random part
    return Drawn(rows[mixed], weights[mixed])


def plain_cell(text: str) -> str:
    """Text as a cell of CSV that no spreadsheet takes for a formula, or cannot hold.

    An apostrophe is put before what could begin a formula, as after white space; a very long text is cut.
    """
    if len(text) > _LONGEST_CELL:
        text = f"{text[:_LONGEST_CELL]} … [{len(text) - _LONGEST_CELL:,} more characters: see the pool]"
    return f"'{text}" if text.lstrip(" \n\v\f\N{NO-BREAK SPACE}\ufeff").startswith(_FORMULA) else text


def _systematic(probability: NDArray[np.float64], start: float, count: int, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Those `count` of `rows` (n,) in whose stretch of the summed `probability` (n,) a step of length 1 ends."""
    ends = np.cumsum(probability)
    steps = (start + np.arange(count)) * (ends[-1] / count if count else 1.0)  # the sum is `count` but for rounding
    return rows[np.searchsorted(ends, steps, side="right")]


def _probabilities(strata: NDArray[np.intp], core: int) -> NDArray[np.float64]:
    """(n,) probability of each sample to be among the `core` that are drawn; its sum is `core`."""
    sizes = np.bincount(strata)
    quota = core * ((1 - _EVEN) * sizes / sizes.sum() + _EVEN / len(sizes))
    full = np.zeros(len(sizes), bool)
    while (over := ~full & (quota > sizes)).any():  # no stratum gives more than it has; the others give more then
        full |= over
        quota[full] = sizes[full]
        rest = core - sizes[full].sum()
        quota[~full] *= rest / quota[~full].sum() if rest > 0 else 0.0
    result: NDArray[np.float64] = (quota / sizes)[strata]
    return result


def _settings_of(curation: Artifact) -> GradesSettings | None:
    """Where the curation had grades from."""
    used = curation.manifest.config.get("grades")
    return None if used is None else parse(GradesSettings, used, where=f"{curation.location}, grades")


def _files_of(curation: Artifact) -> tuple[str, ...]:
    settings = _settings_of(curation)
    return () if settings is None else settings.paths


def _graded(curation: Artifact, pool: Artifact, files: Sequence[str], scratch: Path) -> Keys:
    """Samples that have a grade, or are on a sheet."""
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
                "the curation had grades from %s, which cannot be read now (%s): give the file with --graded, or "
                "samples may be drawn that are graded",
                path,
                error.problem,
            )
    return pack(pa.array(sorted(found), pa.string()), where=f"ids in {', '.join(files) or 'the grades'}")


def _sheet(
    pool: Artifact, scores: Scores, drawn: Drawn, sources: Sequence[str], *, blind: bool
) -> list[dict[str, Any]]:
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


def _texts(pool: Artifact, ids: Sequence[str]) -> Mapping[str, tuple[str, str]]:
    """What each sample asks, and what it answers."""
    wanted, found = pa.array(ids, pa.string()), {}
    for batch in pool.batches(["id", "messages"], rows=_TEXTS):
        for row in batch.filter(pc.is_in(batch["id"], value_set=wanted)).to_pylist():
            found[row["id"]] = _parts(row["messages"])
    return found


def _parts(messages: Sequence[Message]) -> tuple[str, str]:
    """The last answer, and all that goes before it: the instruction alone, or the conversation with its roles."""
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
    return text.getvalue().encode("utf-8-sig")  # the mark tells spreadsheets that it is UTF-8


def _as_jsonl(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


_WRITERS = {".csv": _as_csv, ".jsonl": _as_jsonl}


def _setting(files: Sequence[str], used: GradesSettings | None) -> str:
    """The setting by which a run reads these files as the last one read its grades."""
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
        f"{len(drawn.rows):,} of {samples:,} samples that '{scores.rater}' scored: {drawn.random:,} drawn at random, "
        f"{doubtful:,} whose score is most doubtful; {samples - len(scores.keys):,} have a grade or are on a sheet"
    ]
    if len(drawn.rows) < size:
        lines.append(f"{size:,} were asked for; no more are left")
    if not np.isfinite(scores.loss).any():
        lines.append("curation says of no sample how sure it is: all were drawn at random")
    lines += [
        f"Fill in the column `grade`, {scale.lowest:g} (worst) to {scale.highest:g} (best){steps}, and `grader` where "
        f"several people grade; then run again with --set {_setting(files, used)}",
        f"to grade: {target}",
    ]
    return "\n".join(lines)


def _classes(column: pa.ChunkedArray) -> NDArray[np.int8]:
    return pc.fill_null(column, UNRATED).to_numpy().astype(np.int8)  # type: ignore[no-any-return]


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return pc.fill_null(column, float("nan")).to_numpy().astype(np.float64)  # type: ignore[no-any-return]


def _lists(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """(n, K) of a column of lists of one length; NaN where there is none."""
    width = column.type.list_size
    blocks = [np.empty((0, width), np.float32)]
    for chunk in column.chunks:
        block = np.full((len(chunk), width), np.nan, np.float32)
        block[chunk.is_valid().to_numpy(zero_copy_only=False)] = chunk.flatten().to_numpy().reshape(-1, width)
        blocks.append(block)
    return np.concatenate(blocks)
