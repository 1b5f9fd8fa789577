"""The pool stage: from sources to one table of samples."""

from __future__ import annotations

import logging
import shutil
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from tamis.core import storage
from tamis.core.artifacts import Manifest
from tamis.core.errors import InputError, explained_os_errors
from tamis.core.ids import pack
from tamis.core.settings import hash_of
from tamis.core.side import Side, counts_in_words
from tamis.core.steps import Step, Uri, run_step
from tamis.core.tables import POOL, PartsWriter
from tamis.pool.checking import look_into
from tamis.pool.counts import Counts
from tamis.pool.draw import Draw
from tamis.pool.keyset import KeySet
from tamis.pool.rejects import RejectsWriter
from tamis.pool.rows import SourceRows
from tamis.pool.settings import PoolSettings
from tamis.pool.sources import Resolved, resolve

log = logging.getLogger(__name__)
REJECTS_FILE = "rejects.parquet"


def run(settings: PoolSettings, *, out: Uri) -> Manifest:
    """Assemble a pool; the artifact at `out` has the samples (schema `POOL`) and `rejects.parquet` (`REJECTS`).

    Raises:
        InputError: when a source cannot be read or has too many unusable rows (the table of rejects is then next to
            `out`), or there is no sample at all.
        StorageError: when a path does not exist or cannot be read.
    """
    sources = [resolve(source) for source in settings.sources]
    files: dict[str, str] = {}
    for resolved in sources:
        name = resolved.source.name
        files |= {f"{name}/{file}": value for file, value in resolved.fingerprints.items()}
        if resolved.recipe is not None:
            files[f"{name}: recipe"] = hash_of(resolved.recipe.model_dump(mode="json"))
    body = partial(_assemble, sources=sources, rejects_beside=f"{str(out).rstrip('/')}.{REJECTS_FILE}")
    return run_step("pool", "pool", settings, body, out=out, files=files)


def _assemble(step: Step[PoolSettings], sources: list[Resolved], rejects_beside: str) -> None:
    if not storage.is_remote(rejects_beside):
        Path(rejects_beside).unlink(missing_ok=True)  # from an earlier run that failed
    for resolved in sources:
        # Without a limit, every file will be read. A file with another layout is reported before hours of reading.
        if resolved.files and resolved.source.limit is None:
            look_into(resolved.source, step.settings, resolved.files)
    pool, total, facts, lossy = _Pool(step), Counts(), {}, 0
    with pool.parts, pool.rejects:
        for resolved in sources:
            name = resolved.source.name
            with closing(SourceRows(step.settings, resolved, step.scratch / "downloads")) as rows:
                counts = pool.take(rows, resolved)
            if counts.rejected > step.settings.max_reject_share * counts.read:
                pool.keep_rejects(rejects_beside)
                raise InputError(
                    f"source '{name}': {counts.rejected:,} of {counts.read:,} rows cannot be used; most frequent:\n"
                    + pool.rejects.most_frequent(name),
                    allowed=f"at most a share of {step.settings.max_reject_share:g} (pool.max_reject_share)",
                    action=f"see all rejected rows in {rejects_beside}; correct the source or its settings",
                )
            if counts.rejected:
                log.warning(
                    "source '%s': %s of %s rows cannot be used; the pool's %s lists them; most frequent:\n%s",
                    *(name, f"{counts.rejected:,}", f"{counts.read:,}", REJECTS_FILE, pool.rejects.most_frequent(name)),
                )
            if counts.duplicates:
                log.info(
                    "source '%s': %s of %s rows are dropped as duplicates of samples in the pool",
                    *(name, f"{counts.duplicates:,}", f"{counts.read:,}"),
                )
            rows.check_all_settings_met()
            _check_side(rows.seen.side, counts, name, step.settings.max_lost_share)
            facts[name] = counts.as_facts() | _described(resolved, rows) | rows.seen.side.as_facts()
            total.add(counts)
            lossy += rows.seen.side.samples
        if total.kept == 0:
            pool.keep_rejects(rejects_beside)
            raise InputError(
                f"the pool is empty: of {total.read:,} rows, {total.rejected:,} cannot be used",
                action=f"check the sources; the rejected rows are in {rejects_beside}",
            )
    step.rows = total.kept
    step.facts.update(total.as_facts() | {"reject_reasons": pool.rejects.counts(), "sources": facts})
    step.facts["samples_with_lost_fields"] = lossy


class _Pool:
    """The pool that is being written: its samples, its rejects and its ids so far."""

    def __init__(self, step: Step[PoolSettings]) -> None:
        self.parts = PartsWriter(step.out, POOL)
        self.rejects = RejectsWriter(step.out / REJECTS_FILE)
        self._seen = KeySet()
        self._draws = step.scratch / "draw"

    def take(self, rows: SourceRows, resolved: Resolved) -> Counts:
        """Add a source, up to its end or its limit."""
        source = resolved.source
        if source.limit is None or source.seed is None:
            return self._take_first(rows, source.name, source.limit)
        return self._take_drawn(rows, source.name, source.limit, source.seed)

    def _take_first(self, rows: SourceRows, name: str, limit: int | None) -> Counts:
        counts, ended = Counts(), False
        while not ended and counts.kept != limit:
            table, ended = self._next_block(rows, name, None if limit is None else limit - counts.kept, counts)
            self._keep(table, counts)
        return counts

    def _take_drawn(self, rows: SourceRows, name: str, size: int, seed: int) -> Counts:
        counts, ended, offered = Counts(), False, 0
        with Draw(size, seed, self._draws) as draw:
            while not ended:
                table, ended = self._next_block(rows, name, None, counts)
                new = draw.offer(table, pack(table["id"].combine_chunks(), where="the pool"))
                counts.duplicates += table.num_rows - new
                offered += new
            for table in draw.drawn():
                self._keep(table, counts)
        counts.not_drawn = offered - counts.kept
        return counts

    def _next_block(self, rows: SourceRows, name: str, samples: int | None, counts: Counts) -> tuple[pa.Table, bool]:
        """The next samples that are not in the pool yet, and whether they are the source's last."""
        block = rows.take(samples)
        self.rejects.write(name, block.rejected)
        new = self._seen.new(pack(block.table["id"].combine_chunks(), where="the pool"))
        table = block.table.filter(pa.array(new))
        counts.read += block.read
        counts.rejected += len(block.rejected)
        counts.left_out += block.left_out
        counts.duplicates += block.table.num_rows - table.num_rows
        return table, block.last

    def keep_rejects(self, beside: str) -> None:
        """Copy the table of rejects to `beside`, where it outlives the failed step. No more rows can be rejected."""
        self.rejects.close()
        if storage.is_remote(beside):
            storage.upload(self.rejects.path, storage.locate(beside))
            return
        with explained_os_errors(f"writing {beside}"):
            shutil.copyfile(self.rejects.path, beside)

    def _keep(self, table: pa.Table, counts: Counts) -> None:
        self._seen.add(pack(table["id"].combine_chunks(), where="the pool"))
        self.parts.write(table)
        counts.add_kept(table)


def _check_side(side: Side, counts: Counts, name: str, most: float) -> None:
    """Log the fields of a source that are not read, and warn of those that change what a model learns.

    Raises:
        InputError: when more than the share `most` of its samples has a field of the second kind.
    """
    others = {field: count for field, count in side.fields.items() if field not in side.lost}
    if others:
        log.info("source '%s': fields that are not read: %s", name, counts_in_words(others))
    if not side.lost:
        return
    usable = counts.kept + counts.duplicates + counts.not_drawn
    problem = (
        f"source '{name}': {side.samples:,} of {usable:,} samples have fields that change what a model learns and are "
        f"not read: {counts_in_words(side.lost)}"
    )
    if side.samples > most * usable:
        system = next((field for field in side.lost if field.startswith("system")), "system")
        raise InputError(
            problem,
            allowed=f"at most a share of {most:g} (pool.max_lost_share)",
            action=f"read a system prompt with `fields: {{system: {system}}}`; list fields in `keep` if the samples "
            "are right without them; convert the data beforehand; or raise the limit",
        )
    log.warning("%s", problem)


def _described(resolved: Resolved, rows: SourceRows) -> dict[str, Any]:
    """Facts about a source for the manifest, besides its counts."""
    facts: dict[str, Any] = {"schema": ", ".join(rows.schemas) or None}
    if rows.guessed:
        facts["guessed"] = dict(rows.guessed)
    if resolved.files:
        facts["files"] = len(resolved.files)
    if resolved.source.dataset is not None:
        facts["dataset"] = resolved.source.dataset
        facts["revision"] = resolved.fingerprints[resolved.source.dataset]
        facts |= rows.taken
    if resolved.recipe is not None:
        facts["samples_in_paper"] = resolved.recipe.samples
    return facts
