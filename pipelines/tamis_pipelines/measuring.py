"""`tamis plan --measure`: measures how fast local models are, in a few seconds of work on samples of the pool."""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from tamis.core.artifacts import Artifact
from tamis.core.errors import TamisError
from tamis.core.sample_columns import conversations
from tamis.core.samples import Message, as_text, sample_id
from tamis.core.settings import Settings
from tamis.embedding.settings import EmbeddingSettings
from tamis.finetuning.settings import FinetuningSettings
from tamis.llm.settings import LocalModelSettings
from tamis.pool.checking import first_samples
from tamis.rating.settings import AskedRater
from tamis.scoring.settings import ScoringSettings
from tamis_pipelines.reuse import Reuse
from tamis_pipelines.settings import RunSettings
from tamis_pipelines.speeds import Speed, Speeds, key_of

_SECONDS = 3.0  # shortest time that each model is measured for, without loading
_LEAST = 4  # smallest number of samples at once, however long that takes
_SAMPLES = 256  # number of different samples; more work repeats them
_STEPS = 4  # training steps: one would be too few, and each is slow

Samples = list[list[Message]]
Work = Callable[[Samples], object]


def measure_all(settings: RunSettings, reuse: Reuse, speeds: Speeds) -> None:
    """Measure each model that has work left and whose speed is not known from earlier steps; add it to `speeds`.

    Raters, the embedding, scores and training in one process can be measured. Influence, evaluation and judging cannot.
    If a measurement fails, the speed stays unknown and `speeds` notes why. Nothing is stored; training writes to a
    temporary folder.
    """
    samples, of = _samples(settings, reuse)
    for stage, config, measure in _models(settings, reuse):
        key = key_of(stage, config.model_dump(mode="json"))
        if speeds.knows(key):
            continue
        try:
            with reuse.as_in_a_run():
                speed = measure(samples, of)
        except (TamisError, OSError) as error:
            problem = error.problem if isinstance(error, TamisError) else str(error)
            speeds.failed(key, f"cannot be measured: {problem}")
            continue
        speeds.add(key, speed)


def _models(settings: RunSettings, reuse: Reuse) -> Iterator[tuple[str, Settings, Callable[[Samples, str], Speed]]]:
    """Yield stage, settings and measurement of each kind of local model work that is left."""

    def is_left(step: str, number: int = 0) -> bool:
        return reuse.of(step, number).state != "there"

    for number, rater in enumerate(settings.raters):
        if isinstance(rater, AskedRater) and isinstance(rater.backend, LocalModelSettings) and is_left("rate", number):
            yield "rating", rater, lambda samples, of, rater=rater: _rating(rater, samples, of)  # type: ignore[misc]
    if is_left("embed"):
        yield "embedding", settings.embedding, lambda samples, of: _embedding(settings.embedding, samples, of)
    for name in settings.scores:
        if name != "influence" and is_left(name):
            scoring: ScoringSettings = getattr(settings, name)
            yield "scoring", scoring, lambda samples, of, scoring=scoring: _scoring(scoring, samples, of)  # type: ignore[misc]
    for number, cell in enumerate(settings.cells):
        if cell.finetuning is not None and is_left("finetune", number):
            training = cell.finetuning
            yield "finetuning", training, lambda samples, of, training=training: _training(training, samples, of)  # type: ignore[misc]


def _samples(settings: RunSettings, reuse: Reuse) -> tuple[Samples, str]:
    """Return samples spread evenly over the existing pool; without a pool, the first ones in the sources' files.

    Without either, return artificial samples of the length that the rates assume.
    """
    pool = reuse.pool.folder
    if pool is not None:
        artifact = Artifact.open(pool, "pool")
        every = max(1, artifact.manifest.rows // _SAMPLES)
        found: Samples = []
        for start, block in _blocks(artifact):
            found += conversations(block.take(pa.array(range(-start % every, len(block), every), pa.int64())))
        return found[:_SAMPLES], "samples of the pool"
    if first := first_samples(settings.pool, _SAMPLES):
        return first, "first samples of the sources"
    words = max(2, int(settings.rates.tokens_per_sample / 2.6))  # question and answer; a word has about 1.3 tokens
    made: Samples = [
        [
            Message(role="user", content=f"{number} " + "why " * words),
            Message(role="assistant", content=f"{number} " + "because " * words),
        ]
        for number in range(_SAMPLES)
    ]
    return made, f"artificial samples of about {settings.rates.tokens_per_sample:,.0f} tokens"


def _blocks(pool: Artifact) -> Iterator[tuple[int, pa.Array]]:
    start = 0
    for batch in pool.batches(["messages"]):
        yield start, batch["messages"]
        start += len(batch)


def _rating(settings: AskedRater, samples: Samples, of: str) -> Speed:
    from tamis.llm.backend import Request
    from tamis.rating.backends import make_backend
    from tamis.rating.prompts import load_prompt

    backend = make_backend(settings, load_prompt(settings.prompt))

    def work(some: Samples) -> None:
        requests = [Request(sample_id(sample), as_text(sample)) for sample in some]
        for _ in backend.answer(iter([requests])):
            pass

    try:
        return _timed(work, samples, of)
    finally:
        backend.close()


def _embedding(settings: EmbeddingSettings, samples: Samples, of: str) -> Speed:
    from tamis.embedding.encoder import Encoder

    encoder: list[Encoder] = []  # loaded with the first samples, because loading does not count

    def work(some: Samples) -> None:
        if not encoder:
            encoder.append(Encoder(settings))
        encoder[0].encode([as_text(sample) for sample in some])

    return _timed(work, samples, of)


def _scoring(settings: ScoringSettings, samples: Samples, of: str) -> Speed:
    passes = settings.measure.passes(settings).values()

    def work(some: Samples) -> None:
        ids = pa.array([sample_id(sample) for sample in some])
        for one in passes:
            one.score(ids, some)

    return _timed(work, samples, of)


def _training(settings: FinetuningSettings, samples: Samples, of: str) -> Speed:
    """Measure a few small optimizer steps; larger ones take slightly less time per sample."""
    from tamis.core.conversations import chat_tokenizer
    from tamis.core.errors import SettingsError
    from tamis.finetuning.conversations import write_tokens
    from tamis.finetuning.processes import to_launch
    from tamis.finetuning.training import train

    if to_launch(settings):
        raise SettingsError("training in several processes can only be measured by a whole training")
    small = settings.model_copy(update={"epochs": 1, "batch_size": settings.micro_batch_size})
    count = _STEPS * settings.micro_batch_size
    chosen = [samples[number % len(samples)] for number in range(count)]
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tamis-") as folder:
        subset = Path(folder) / "subset.jsonl"
        rows = [{"id": sample_id(sample), "source": "measured", "messages": sample} for sample in chosen]
        subset.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        tokenizer = chat_tokenizer(settings.model, settings.revision, settings.format)
        trained = write_tokens(subset, tokenizer, small, Path(folder))["samples"]
        seconds = train(small, tokenizer, Path(folder)).seconds
    return _speed(trained, seconds, time.monotonic() - started - seconds, of)


def _timed(work: Work, samples: Samples, of: str) -> Speed:
    """Run `work` on more and more samples until it has run long enough, and return the speed of the largest number.

    The first sample loads the model. A sample takes longer in a small batch than in a large one.
    """
    started = time.monotonic()
    work(samples[:1])
    begun = last = time.monotonic()
    size = 1
    while last - begun < _SECONDS or size < _LEAST:
        size = min(2 * size, max(len(samples), _LEAST))
        before = last
        work([samples[number % len(samples)] for number in range(size)])
        last = time.monotonic()
    seconds = last - before
    _free_memory()
    return _speed(size, seconds, max(begun - started - seconds / size, 0.0), of)


def _speed(done: int, seconds: float, fixed: float, of: str) -> Speed:
    return Speed(done, seconds, fixed, f"a measurement now, {done:,} {of} in {seconds:,.1f} s, loading {fixed:,.1f} s")


def _free_memory() -> None:
    gc.collect()
    if (torch := sys.modules.get("torch")) is not None:
        torch.cuda.empty_cache()
