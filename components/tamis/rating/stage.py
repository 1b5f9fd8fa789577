"""The rating stage: makes one rater's ratings of a pool."""

from __future__ import annotations

import logging
from functools import partial

from tamis.core.artifacts import Kind, Manifest
from tamis.core.models import revision_of
from tamis.core.references import folders_in
from tamis.core.settings import hash_of
from tamis.core.steps import Input, Step, Uri, run_step
from tamis.core.storage import fingerprint
from tamis.core.tables import POSSIBLE, PartsWriter, ratings_with
from tamis.llm.backends import BACKENDS
from tamis.llm.budget import Allowance, Words, at_once, limit_of
from tamis.llm.durable import DurableAsking
from tamis.llm.settings import LocalModelSettings
from tamis.llm.store import spare_places
from tamis.rating.drawing import draw
from tamis.rating.importing import import_ratings
from tamis.rating.metrics import Metrics
from tamis.rating.planning import plan, refuse_idle
from tamis.rating.prompts import load_prompt
from tamis.rating.rater import Rater
from tamis.rating.records import Rating, rating_of
from tamis.rating.rows import Rows
from tamis.rating.scaling import question_lower_half
from tamis.rating.settings import AskedRater, ImportedRater, RatingSettings
from tamis.rating.shards import Shard
from tamis.rating.summary import Summary

__all__ = ["plan", "run"]

log = logging.getLogger(__name__)


def run(settings: RatingSettings, *, pool: Uri, embeddings: Uri | None = None, out: Uri) -> Manifest:
    """Rate every sample of `pool`. The artifact at `out` has one row per sample, in the order of the pool.

    With `settings.sample`, only a part of the samples is rated, and those in `settings.also`; the others have the
    status "not_asked". With `settings.shard`, the artifact holds that shard of the samples, for `merging.run`.

    Args:
        settings: the rater.
        pool: the samples.
        embeddings: embeddings of the samples; `settings.sample` is spread over the neighbourhoods of each source.
        out: where the artifact is written.

    Raises:
        SettingsError: when `embeddings` are given without `settings.sample`.
        ModelError: when the rater's model cannot be used, or more than `max_failure_share` of the samples got none.
        InputError: when imported ratings cannot be used, `embeddings` lack a sample of the pool, or none of the samples
            in `settings.also` is in the pool.
        StorageError: when the store, or a file in the settings, cannot be read or written.
    """
    refuse_idle(settings, embeddings)
    inputs = {"pool": Input(pool, "pool"), "embeddings": Input(embeddings, "embeddings")}
    if isinstance(settings, ImportedRater):
        files = {"ratings": fingerprint(settings.backend.path)}
        return run_step(
            "rating", "ratings", settings, import_ratings, out=out, inputs=inputs, files=files, name=settings.name
        )
    assert isinstance(settings, AskedRater)
    backend = settings.backend
    prompt = load_prompt(settings.prompt)
    files = {"prompt": prompt.hash} | BACKENDS.origin(backend.kind)
    if prompt.keeps_rationale:
        files["rationale"] = "kept"
    files |= folders_in(settings, "tokenizer")
    files |= {f"also {number}": fingerprint(file) for number, file in enumerate(settings.also, 1)}
    if isinstance(backend, LocalModelSettings):  # of a service's model only the name is known
        files["model"] = revision_of(backend.model, backend.revision)
    kind: Kind = "ratings" if settings.shard is None else "ratings_part"
    return run_step("rating", kind, settings, _rate, out=out, inputs=inputs, files=files, name=settings.name)


def _rate(step: Step[AskedRater]) -> None:
    settings, pool = step.settings, step.input("pool")
    drawn = draw(settings, pool, next(iter(step.inputs("embeddings")), None))
    rater, summary = Rater(settings, drawn, spare_places(step.scratch)), Summary()
    scope = hash_of([pool.manifest.content_hash, settings.shard])
    scores = rater.prompt.scores
    table = ratings_with(scores.fields, rationale=rater.prompt.keeps_rationale)
    words = Words(f"rater '{settings.name}'", "samples", "rating", "rated")
    asking: DurableAsking[Rating] = DurableAsking(rater.backend, rater.store, words, scope=scope, older=[rater.named])
    with asking:
        if drawn:
            log.info("rater '%s': %s", settings.name, drawn)
        earlier = rater.earlier(pool)
        with (
            Metrics(settings.name, earlier.samples, earlier.final) as metrics,
            PartsWriter(step.out, table) as parts,
        ):
            blocks = (list(rater.samples(*block)) for block in rater.blocks(pool, ["id", "messages"]))
            # Batches may take a day, so many blocks are kept open at once.
            most_open = 100 if hasattr(rater.backend, "remember_in") else 8
            rows = Rows(blocks, rater.is_final, parts, settings.name, summary.add, most_open, table)
            for finished in asking.ask(
                earlier,
                rows.more,
                read=partial(rating_of, criteria=scores),
                max_attempts=settings.max_attempts,
                allowance=_allowance(settings),
                tally=summary,
            ):
                for rating in finished:
                    metrics.count(rating, asking.budget)
                    rows.finish(rating)
    summary.log(settings.name)
    step.rows = parts.rows
    step.models["rater"] = str(rater.backend.identity["model"])
    step.facts.update(summary.facts())
    question_lower_half(settings.name, step.facts["overall_histogram"], scores.scale)
    step.facts |= {
        "scale": str(scores.scale),
        POSSIBLE: scores.possible,
        "prompt": {"name": settings.prompt, "version": rater.prompt.version, "hash": rater.prompt.hash},
        "backend": dict(rater.backend.identity),
        "reused": earlier.final,
        "asked": earlier.samples - earlier.final,
        "damaged_store_parts": rater.stored.damaged,
    }
    if not scores.mapped:
        step.facts["criteria"] = scores.facts
    if drawn:
        step.facts["sample"] = drawn.facts()
    if rater.shard:
        step.facts["shard"] = {"number": rater.shard.number, "of": rater.shard.of}
    step.facts |= asking.budget.facts()


def _allowance(settings: AskedRater) -> Allowance:
    """The limits of this run; the limit on cost is divided equally among shards."""
    shards = Shard.read(settings.shard).of if settings.shard else 1
    limit = limit_of(settings)
    return Allowance(
        settings.max_failure_share,
        settings.price,
        None if limit.most is None else limit.most / shards,
        f"{limit.called}{', divided among the shards' if settings.shard else ''}",
        at_once(settings.backend),
        limit.raised_by,
    )
