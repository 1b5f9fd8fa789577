"""The rating stage: pool in, one rater's ratings out."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact, Kind, Manifest
from tamis.core.errors import SettingsError
from tamis.core.models import revision_of
from tamis.core.progress import Progress
from tamis.core.references import folders_in
from tamis.core.samples import as_text
from tamis.core.settings import hash_of
from tamis.core.steps import Input, Step, Uri, run_step
from tamis.core.storage import exists, fingerprint, is_remote
from tamis.core.tables import POSSIBLE, RATINGS, PartsWriter
from tamis.llm.asking import TOKENS, ask, is_final
from tamis.llm.backend import Answer, Backend
from tamis.llm.backends import BACKENDS
from tamis.llm.backends.journal import Journal
from tamis.llm.budget import Allowance, Budget, Words, at_once, ledger_of, limit_of
from tamis.llm.first import FirstAnswers
from tamis.llm.machine import one_at_a_time, place_of_answers
from tamis.llm.readings import anew
from tamis.llm.settings import LocalModelSettings
from tamis.llm.store import Store, Writer, spare_places
from tamis.llm.tally import Speed
from tamis.rating.backends import make_backend
from tamis.rating.drawing import Drawn, draw
from tamis.rating.importing import import_ratings
from tamis.rating.metrics import Metrics
from tamis.rating.prompts import Prompt, load_prompt
from tamis.rating.records import RECORDS, Rating, not_asked, rating_of
from tamis.rating.rows import BLOCK, Rows, Sample
from tamis.rating.scaling import question_lower_half
from tamis.rating.settings import ImportSettings, RatingSettings
from tamis.rating.shards import Shard
from tamis.rating.summary import Summary

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do, found without asking the rater.

    Attributes:
        samples: in the pool, or in its shard.
        stored: of those that are asked about, the ones whose finished rating the store has.
        prompt_tokens: of the others, one attempt each; exact where the backend has the tokenizer.
        completion_tokens: of their answers, as far as can be foreseen.
        shortened: of the others, those whose middle would be left out.
        too_long: of the others, those that would not fit even so.
        cost: of these tokens; None where the settings name no price.
        not_asked: of the samples, those that the settings `sample` and `also` leave out.
        spared: of these, the ones whose rating the store lacks: what `sample` saves.
    """

    samples: int
    stored: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    shortened: int = 0
    too_long: int = 0
    cost: float | None = None
    not_asked: int = 0
    spared: int = 0

    @property
    def asked(self) -> int:
        """Samples that are to have a rating."""
        return self.samples - self.not_asked

    def __str__(self) -> str:
        lines = [
            f"samples:           {self.samples:>15,}",
            *([f"asked about:       {self.asked:>15,}"] if self.not_asked else []),
            f"rated already:     {self.stored:>15,}",
            f"to be rated:       {self.asked - self.stored:>15,}",
            f"  shortened:       {self.shortened:>15,}",
            f"  too long:        {self.too_long:>15,}",
            f"prompt tokens:     {self.prompt_tokens:>15,}",
            f"answer tokens:     {self.completion_tokens:>15,}  (one attempt at each sample)",
        ]
        if self.cost is not None:
            lines.append(f"cost:              {self.cost:>15,.2f}")
        if self.spared and self.asked > self.stored:
            times = self.spared / (self.asked - self.stored)
            saved = [f"{times * self.prompt_tokens:,.0f} prompt tokens"]
            if self.cost is not None:
                saved.append(f"a cost of {times * self.cost:,.2f}")
            lines.append(f"the sample saves:  {self.spared:>15,}  ratings, about {' and '.join(saved)}")
        return "\n".join(lines)


def run(settings: RatingSettings, *, pool: Uri, embeddings: Uri | None = None, out: Uri) -> Manifest:
    """Rate every sample of `pool`; the artifact at `out` has one row per sample, in the pool's order.

    With `settings.sample` only a part of the samples is asked about, and those that `settings.also` names; the others
    have the status "not_asked". With `settings.shard` it is a part of ratings with that share of the samples, for
    `merging.run`.

    Args:
        settings: the rater.
        pool: the samples.
        embeddings: of the pool's samples; they spread `settings.sample` over the neighbourhoods of each source.
        out: where the artifact goes.

    Raises:
        SettingsError: when `embeddings` are given without `settings.sample`.
        ModelError: when the rater's model cannot be used, or more than `max_failure_share` of the samples got none.
        InputError: when imported ratings cannot be used, `embeddings` lack a sample of the pool, or it has none of the
            samples of `settings.also`.
        StorageError: when the store, or a file of the settings, cannot be read or written.
    """
    backend = settings.backend
    _refuse_idle(settings, embeddings)
    if isinstance(backend, ImportSettings):
        body, files = import_ratings, {"ratings": fingerprint(backend.path)}
    else:
        prompt = load_prompt(settings.prompt)
        body, files = _rate, {"prompt": prompt.hash} | BACKENDS.origin(backend.kind)
        files |= folders_in(settings, "tokenizer")
        files |= {f"also {number}": fingerprint(file) for number, file in enumerate(settings.also, 1)}
        if isinstance(backend, LocalModelSettings):  # of a service's model the name is all that is known
            files["model"] = revision_of(backend.model, backend.revision)
    inputs = {"pool": Input(pool, "pool"), "embeddings": Input(embeddings, "embeddings")}
    kind: Kind = "ratings" if settings.shard is None else "ratings_part"
    return run_step("rating", kind, settings, body, out=out, inputs=inputs, files=files, name=settings.name)


def plan(settings: RatingSettings, *, pool: Uri, embeddings: Uri | None = None) -> Plan:
    """What `run` would do with the same arguments. Asks nothing and loads no weights."""
    _refuse_idle(settings, embeddings)
    with tempfile.TemporaryDirectory(prefix="tamis-") as cache:
        artifact = Artifact.open(pool, "pool", cache=Path(cache))
        if isinstance(settings.backend, ImportSettings):
            return Plan(artifact.manifest.rows)
        spread = None if embeddings is None else Artifact.open(embeddings, "embeddings", cache=Path(cache))
        rater = _Rater(settings, _place(settings), draw(settings, artifact, spread))
        samples = left = shortened = too_long = tokens = answers = not_asked = spared = 0
        for block, drawn in rater.blocks(artifact, ["id", "messages"]):
            samples += len(block)
            others = block["id"].filter(pa.array(~drawn))
            not_asked += len(others)
            spared += len(others) - rater.final_among(others)
            texts = [text for _, text, known in rater.samples(block, drawn) if not rater.is_final(known)]
            left += len(texts)
            for size in rater.backend.measure(texts):
                shortened += size.shortened
                too_long += size.too_long
                tokens += 0 if size.too_long else size.prompt_tokens
                answers += 0 if size.too_long else size.completion_tokens
        cost = settings.price.of(tokens, answers) if settings.price else None
        stored = samples - not_asked - left
        return Plan(samples, stored, tokens, answers, shortened, too_long, cost, not_asked, spared)


def known(settings: RatingSettings, *, pool: Uri | None, spare: Sequence[Path] = ()) -> tuple[int, int]:
    """How many samples of `pool` are to be rated, and of how many of them the store has the final rating.

    Without a pool: 0, and how many ratings by this rater the store has, of any samples. Asks nothing, loads no weights
    and counts no tokens: quicker than `plan`.

    Args:
        settings: a rater that is asked; imported ratings have no store.
        pool: a local artifact.
        spare: where answers are left that the store did not take.
    """
    if pool is None:
        return 0, len(_Rater(settings, _place(settings), None, spare).stored)
    artifact = Artifact.open(pool, "pool")
    seen = _Rater(settings, _place(settings), draw(settings, artifact), spare).known(artifact)
    return seen.samples, seen.final


def _refuse_idle(settings: RatingSettings, embeddings: Uri | None) -> None:
    """Embeddings only say which samples are drawn."""
    if embeddings is not None and settings.sample is None:
        raise SettingsError(
            "embeddings have no effect on the rating of all samples",
            action="set `sample`, the part of the pool that is rated, or leave the embeddings out",
        )


@dataclass(frozen=True)
class _Known:
    """What the store has of a pool's samples.

    Attributes:
        samples: that are to be rated.
        final: of them, those that need not be asked about.
        tokens: that their answers took, by the fields `asking.TOKENS`.
        read: attempts at those whose last answer could be read.
        unread: attempts at those of which none could.
    """

    samples: int
    final: int
    tokens: Counter[str]
    read: int
    unread: int


class _Rater:
    """A rater with what is stored of its ratings, and which part of the pool it rates."""

    def __init__(
        self,
        settings: RatingSettings,
        store: Uri,
        drawn: Drawn | None,
        spare: Sequence[Path] = (),
        *,
        compact: bool = False,
    ) -> None:
        self.drawn = drawn
        self.settings, self.prompt = settings, load_prompt(settings.prompt)
        self.backend: Backend = make_backend(settings, self.prompt)
        key = _key(settings, self.prompt, self.backend)
        self.store = Store(store, key, RECORDS, spare)
        # Earlier versions had the rater's name in the key: what was paid for then is not paid for again.
        named = Store(store, {"rater": settings.name} | key, RECORDS, spare)
        if hasattr(self.backend, "remember_in"):  # batches that are under way are noted where they were
            place = (named if exists(named.journal) else self.store).journal
            self.backend.remember_in(Journal(place, self.store.same_folder))
        self.shard = Shard.read(settings.shard) if settings.shard else None
        wanted = None if self.shard is None else self.shard.has
        if compact:
            self.store.compact()
        self.named = named
        self.stored = (
            named.read(wanted)  # of two ratings that are worth the same, the rater's own counts
            .beside(self.store.read(wanted))
            .anew(partial(anew, read=partial(rating_of, scale=self.prompt.scale)))
        )

    def blocks(self, pool: Artifact, columns: list[str]) -> Iterator[tuple[pa.RecordBatch, NDArray[np.bool_]]]:
        """The samples of the pool that are this worker's, in the pool's order, and which of them are to be rated."""
        start = 0
        for block in pool.batches(columns, rows=BLOCK):
            drawn = np.ones(len(block), bool) if self.drawn is None else self.drawn.mask[start : start + len(block)]
            start += len(block)
            if self.shard:
                mine = self.shard.has(block["id"])
                block, drawn = block.filter(pa.array(mine)), drawn[mine]
            yield block, drawn

    def is_final(self, rating: Rating | None) -> bool:
        """Whether a sample with this stored rating need not be asked about."""
        return rating is not None and is_final(rating, self.backend, self.settings.max_attempts)

    def final_among(self, ids: pa.Array) -> int:
        """How many samples need not be asked about."""
        counts = self.stored.count(ids, ["status", "attempts"])
        return sum(
            count
            for (status, attempts), count in counts.items()
            if self.is_final(Rating.model_construct(id="", status=status, attempts=attempts))
        )

    def known(self, pool: Artifact) -> _Known:
        """What the store has of the samples of `pool` that are to be rated."""
        samples = final = 0
        tokens, answers = Counter[str](), Counter[str]()
        for block, drawn in self.blocks(pool, ["id"]):
            ids = block["id"].filter(pa.array(drawn))
            samples += len(ids)
            final += self.final_among(ids)
            tokens.update(self.stored.sums(ids, TOKENS))
            for (status, attempts), count in self.stored.count(ids, ["status", "attempts"]).items():
                answers[status] += count * attempts
        return _Known(samples, final, tokens, answers["ok"], answers["unparsable"])

    def samples(self, block: pa.RecordBatch, drawn: NDArray[np.bool_]) -> Iterator[Sample]:
        """Id, text and rating of each sample of a block of the pool; no text where none is needed.

        The rating is the stored one. Of a sample that is not `drawn` (n,) it says so, whatever the store has: ratings
        do not depend on what was rated before.
        """
        ids, messages = block["id"], block["messages"]
        for row, (sample, known) in enumerate(zip(ids.to_pylist(), self.stored.find(ids), strict=True)):
            if not drawn[row]:
                yield sample, "", not_asked(sample)
                continue
            yield sample, "" if self.is_final(known) else as_text(messages[row].as_py()), known


def _key(settings: RatingSettings, prompt: Prompt, backend: Backend) -> dict[str, object]:
    """What ratings depend on beside the sample: ratings with equal keys are worth the same."""
    sampling: dict[str, object] = {"temperature": settings.temperature}
    if settings.temperature > 0:
        sampling |= {"top_p": settings.top_p, "top_k": settings.top_k, "seed": settings.seed}
    return {"prompt": prompt.hash, "sampling": sampling, "backend": dict(backend.identity)}


def _place(settings: RatingSettings) -> Uri:
    return place_of_answers("ratings", settings.store, getattr(settings.backend, "base_url", None))


def _rate(step: Step[RatingSettings]) -> None:
    settings, pool = step.settings, step.input("pool")
    place = _place(settings)
    where = str(place) if is_remote(place) else str(Path(place).resolve())
    about = [pool.manifest.content_hash, settings.shard]
    asked = [settings.prompt, settings.backend.kind, getattr(settings.backend, "model", None)]
    with one_at_a_time(f"rater '{settings.name}'", where, about, asked):
        _rate_alone(step, place, hash_of(about))


def _rate_alone(step: Step[RatingSettings], place: Uri, about: str) -> None:
    settings, pool = step.settings, step.input("pool")
    drawn = draw(settings, pool, next(iter(step.inputs("embeddings")), None))
    rater = _Rater(settings, place, drawn, spare_places(step.scratch), compact=True)
    known = rater.known(pool)
    samples, reused = known.samples, known.final
    if drawn:
        log.info("rater '%s': %s", settings.name, drawn)
    if reused:
        log.info("rater '%s': %d of %d ratings are in the store already (%s)", settings.name, reused, samples, place)
    if reused < samples:
        rater.store.prepare()
    rater.store.bring_in()
    summary, speed = Summary(), Speed()
    allowance = _allowance(settings)
    words = Words(f"rater '{settings.name}'", "samples", "rating", "rated")
    first = FirstAnswers(words, read=known.read, unread=known.unread)
    budget = Budget(
        allowance,
        words,
        samples,
        summary,
        reused=reused,
        backend=rater.backend,
        before=known.tokens,
        ledger=ledger_of(allowance, rater.backend, rater.store, about, older=[rater.named]),
    )
    with (
        Progress(f"rater '{settings.name}'", samples, done=reused) as progress,
        Metrics(settings.name, samples, reused) as metrics,
        closing(budget),
        Writer(rater.store, durable=budget.recorded) as writer,
        PartsWriter(step.out, RATINGS) as parts,
    ):
        blocks = (list(rater.samples(*block)) for block in rater.blocks(pool, ["id", "messages"]))
        # Where answers take up to a day, many blocks are to be under way at once.
        most_open = 100 if hasattr(rater.backend, "remember_in") else 8
        rows = Rows(blocks, rater.is_final, parts, settings.name, summary.add, most_open)

        def read(answer: Answer, attempt: int, earlier: Rating | None) -> Rating:
            budget.pay(answer)
            return rating_of(answer, attempt, earlier, scale=rater.prompt.scale)

        for finished in ask(
            rater.backend,
            rows.more,
            read=read,
            max_attempts=settings.max_attempts,
            keep=writer.add,
            first=first,
            admit=budget.admit,
            enough=lambda: budget.failed() or writer.failed(),
        ):
            for rating in finished:
                summary.add(rating)
                budget.finish()
                metrics.count(rating, budget)
                rows.finish(rating)
            note = ", ".join(filter(None, (speed.after(finished), budget.note())))
            progress.advance(len(finished), note, failed=sum(rating.status != "ok" for rating in finished))
    first.check()
    budget.check()
    summary.log(settings.name)
    step.rows = parts.rows
    step.models["rater"] = str(rater.backend.identity["model"])
    step.facts.update(summary.facts())
    question_lower_half(settings.name, step.facts["overall_histogram"], rater.prompt.scale)
    step.facts |= {
        "scale": str(rater.prompt.scale),
        POSSIBLE: list(rater.prompt.scale.in_steps_of(1.0).ratings()),
        "prompt": {"name": settings.prompt, "version": rater.prompt.version, "hash": rater.prompt.hash},
        "backend": dict(rater.backend.identity),
        "reused": reused,
        "asked": samples - reused,
        "damaged_store_parts": rater.stored.damaged,
    }
    if drawn:
        step.facts["sample"] = drawn.facts()
    if rater.shard:
        step.facts["shard"] = {"number": rater.shard.number, "of": rater.shard.of}
    step.facts |= budget.facts()


def _allowance(settings: RatingSettings) -> Allowance:
    """The budget is the pool's; a shard has its share of it."""
    shards = Shard.read(settings.shard).of if settings.shard else 1
    limit = limit_of(settings)
    return Allowance(
        settings.max_failure_share,
        settings.price,
        None if limit.most is None else limit.most / shards,
        f"{limit.called}{', a shard has its part' if settings.shard else ''}",
        at_once(settings.backend),
        limit.raised_by,
    )
