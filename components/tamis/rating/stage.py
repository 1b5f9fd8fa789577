"""The rating stage: pool in, one rater's ratings out."""

from __future__ import annotations

import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tamis.core.artifacts import Artifact, Kind, Manifest
from tamis.core.llm.asking import ask, is_final
from tamis.core.llm.backend import Answer, Backend
from tamis.core.llm.backends.journal import Journal
from tamis.core.llm.budget import Allowance, Budget, Words
from tamis.core.llm.settings import OpenAIBatchSettings, TransformersSettings, VllmSettings
from tamis.core.llm.tally import TOKENS, Speed
from tamis.core.models import revision_of
from tamis.core.processes import ended_in_order
from tamis.core.progress import Progress
from tamis.core.samples import as_text
from tamis.core.steps import Input, Step, Uri, run_step
from tamis.core.storage import fingerprint
from tamis.core.store import Store, Writer
from tamis.core.tables import RATINGS, PartsWriter
from tamis.rating.backends import make_backend
from tamis.rating.importing import import_ratings
from tamis.rating.metrics import Metrics
from tamis.rating.prompts import Prompt, load_prompt
from tamis.rating.records import RECORDS, Rating, rating_of
from tamis.rating.rows import BLOCK, Rows, Sample
from tamis.rating.settings import ImportSettings, RatingSettings
from tamis.rating.shards import Shard
from tamis.rating.summary import Summary

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do, found without asking the rater.

    Attributes:
        samples: in the pool.
        stored: of them, those whose finished rating the store has.
        prompt_tokens: of the others, one attempt each; exact where the backend has the tokenizer.
        completion_tokens: of their answers, as far as can be foreseen.
        shortened: of the others, those whose middle would be left out.
        too_long: of the others, those that would not fit even so.
        cost: of these tokens; None where the settings name no price.
    """

    samples: int
    stored: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    shortened: int = 0
    too_long: int = 0
    cost: float | None = None

    def __str__(self) -> str:
        lines = [
            f"samples:           {self.samples:>15,}",
            f"rated already:     {self.stored:>15,}",
            f"to be rated:       {self.samples - self.stored:>15,}",
            f"  shortened:       {self.shortened:>15,}",
            f"  too long:        {self.too_long:>15,}",
            f"prompt tokens:     {self.prompt_tokens:>15,}",
            f"answer tokens:     {self.completion_tokens:>15,}  (one attempt at each sample)",
        ]
        return "\n".join(lines if self.cost is None else [*lines, f"cost:              {self.cost:>15,.2f}"])


def run(settings: RatingSettings, *, pool: Uri, out: Uri) -> Manifest:
    """Rate every sample of `pool`; the artifact at `out` has one row per sample, in the pool's order.

    With `settings.shard` it is a part of ratings with that share of the samples, for `merging.run`.

    Raises:
        ModelError: when the rater's model cannot be used, or more than `max_failure_share` of the samples got none.
        InputError: when imported ratings cannot be used.
        StorageError: when the store, or the file to import, cannot be read or written.
    """
    backend = settings.backend
    if isinstance(backend, ImportSettings):
        body, files = import_ratings, {"ratings": fingerprint(backend.path)}
    else:
        prompt = load_prompt(settings.prompt)
        body, files = _rate, {"prompt": prompt.hash}
        if isinstance(
            backend, TransformersSettings | VllmSettings
        ):  # of a service's model the name is all that is known
            files["model"] = revision_of(backend.model, backend.revision)
    inputs = {"pool": Input(pool, "pool")}
    kind: Kind = "ratings" if settings.shard is None else "ratings_part"
    return run_step("rating", kind, settings, body, out=out, inputs=inputs, files=files, name=settings.name)


def plan(settings: RatingSettings, *, pool: Uri) -> Plan:
    """What `run` would do with `settings` and `pool`. Asks nothing and loads no weights."""
    with tempfile.TemporaryDirectory(prefix="tamis-") as cache:
        artifact = Artifact.open(pool, "pool", cache=Path(cache))
        if isinstance(settings.backend, ImportSettings):
            return Plan(artifact.manifest.rows)
        rater = _Rater(settings, _place_of_store(settings))
        samples = left = shortened = too_long = tokens = answers = 0
        for block in rater.blocks(artifact, ["id", "messages"]):
            samples += len(block)
            texts = [text for _, text, known in rater.samples(block) if not rater.is_final(known)]
            left += len(texts)
            for size in rater.backend.measure(texts):
                shortened += size.shortened
                too_long += size.too_long
                tokens += 0 if size.too_long else size.prompt_tokens
                answers += 0 if size.too_long else size.completion_tokens
        cost = settings.price.of(tokens, answers) if settings.price else None
        return Plan(samples, samples - left, tokens, answers, shortened, too_long, cost)


class _Rater:
    """A rater with what is stored of its ratings."""

    def __init__(self, settings: RatingSettings, store: Uri | None) -> None:
        self.settings, self.prompt = settings, load_prompt(settings.prompt)
        self.backend: Backend = make_backend(settings, self.prompt)
        self.store = None if store is None else Store(store, _key(settings, self.prompt, self.backend), RECORDS)
        if self.store is not None and isinstance(settings.backend, OpenAIBatchSettings):
            from tamis.core.llm.backends.openai_batch import OpenAIBatchBackend

            assert isinstance(self.backend, OpenAIBatchBackend)
            self.backend.remember_in(Journal(self.store.journal))
        self.shard = Shard.read(settings.shard) if settings.shard else None
        wanted = None if self.shard is None else self.shard.has
        self.stored = RECORDS.none() if self.store is None else self.store.read(wanted)

    def blocks(self, pool: Artifact, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """The samples of the pool that are this worker's, in the pool's order."""
        for block in pool.batches(columns, rows=BLOCK):
            yield self.shard.of_block(block) if self.shard else block

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

    def samples(self, block: pa.RecordBatch) -> Iterator[Sample]:
        """Id, text and stored rating of each sample of a block of the pool; no text where none is needed."""
        ids, messages = block["id"], block["messages"]
        for row, (sample, known) in enumerate(zip(ids.to_pylist(), self.stored.find(ids), strict=True)):
            yield sample, "" if self.is_final(known) else as_text(messages[row].as_py()), known


def _key(settings: RatingSettings, prompt: Prompt, backend: Backend) -> dict[str, object]:
    """What ratings depend on beside the sample: ratings with equal keys are worth the same."""
    sampling: dict[str, object] = {"temperature": settings.temperature}
    if settings.temperature > 0:
        sampling |= {"top_p": settings.top_p, "top_k": settings.top_k, "seed": settings.seed}
    return {"rater": settings.name, "prompt": prompt.hash, "sampling": sampling, "backend": dict(backend.identity)}


def _place_of_store(settings: RatingSettings) -> Uri | None:
    """Where ratings outlive the step: what the settings say, else in Tamis' home, if there is one."""
    if settings.store is not None:
        return settings.store
    return Path(os.environ["TAMIS_HOME"], "ratings") if "TAMIS_HOME" in os.environ else None


def _rate(step: Step[RatingSettings]) -> None:
    settings, pool = step.settings, step.input("pool")
    rater = _Rater(settings, _place_of_store(settings) or step.scratch / "ratings")
    assert rater.store is not None
    samples = reused = 0
    before = Counter[str]()
    for block in rater.blocks(pool, ["id"]):
        samples += len(block)
        reused += rater.final_among(block["id"])
        before.update(rater.stored.sums(block["id"], TOKENS))
    if reused:
        log.info("rater '%s': %d of %d ratings are in the store already", settings.name, reused, samples)
    summary, speed = Summary(), Speed()
    budget = Budget(
        _allowance(settings),
        Words(f"rater '{settings.name}'", "samples", "rating", "rated"),
        samples,
        summary,
        reused=reused,
        measure=rater.backend.measure,
        before=before,
    )
    with (
        ended_in_order(),
        Progress(f"rater '{settings.name}'", samples, done=reused) as progress,
        Metrics(settings.name, samples, reused) as metrics,
        Writer(rater.store) as writer,
        PartsWriter(step.out, RATINGS) as parts,
    ):
        blocks = (list(rater.samples(block)) for block in rater.blocks(pool, ["id", "messages"]))
        # Batches take up to a day, so that many blocks are to be under way at once.
        most_open = 100 if isinstance(settings.backend, OpenAIBatchSettings) else 8
        rows = Rows(blocks, rater.is_final, parts, settings.name, summary.add, most_open)

        def read(answer: Answer, attempt: int, earlier: Rating | None) -> Rating:
            budget.pay(answer)
            return rating_of(answer, attempt, earlier)

        for finished in ask(
            rater.backend,
            rows.more,
            read=read,
            max_attempts=settings.max_attempts,
            keep=writer.add,
            admit=budget.admit,
            enough=budget.failed,
        ):
            for rating in finished:
                summary.add(rating)
                budget.finish()
                metrics.count(rating, budget)
                rows.finish(rating)
            progress.advance(len(finished), note=", ".join(filter(None, (speed.after(finished), budget.note()))))
    budget.check()
    summary.log(settings.name)
    step.rows = parts.rows
    step.models["rater"] = str(rater.backend.identity["model"])
    step.facts.update(summary.facts())
    step.facts |= {
        "prompt": {"name": settings.prompt, "version": rater.prompt.version, "hash": rater.prompt.hash},
        "backend": dict(rater.backend.identity),
        "reused": reused,
        "asked": samples - reused,
        "damaged_store_parts": rater.stored.damaged,
    }
    if rater.shard:
        step.facts["shard"] = {"number": rater.shard.number, "of": rater.shard.of}
    if budget.cost is not None:
        step.facts["cost"] = round(budget.cost, 6)


def _allowance(settings: RatingSettings) -> Allowance:
    """The budget is the pool's; a shard has its share of it."""
    shards = Shard.read(settings.shard).of if settings.shard else 1
    return Allowance(
        settings.max_failure_share,
        settings.price,
        None if settings.max_cost is None else settings.max_cost / shards,
        "max_cost, a shard has its share" if settings.shard else "max_cost",
    )
