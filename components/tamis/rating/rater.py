"""A rater with its engine, its store, and the part of the pool that it rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.samples import as_text
from tamis.llm.asking import TOKENS, is_final
from tamis.llm.backend import Backend
from tamis.llm.backends import BACKENDS
from tamis.llm.durable import Earlier
from tamis.llm.machine import place_of_answers
from tamis.llm.readings import anew
from tamis.llm.store import Store, Stored
from tamis.rating.backends import make_backend
from tamis.rating.drawing import Drawn
from tamis.rating.prompts import Prompt, load_prompt
from tamis.rating.records import Rating, not_asked, rating_of, records_of
from tamis.rating.rows import BLOCK, Sample
from tamis.rating.settings import AskedRater
from tamis.rating.shards import Shard


class Rater:
    """A rater with its engine, its store, and the part of the pool that it rates.

    Args:
        settings: the rater.
        drawn: the part of the pool that is rated; None for all of it.
        spare: local folders for answers that cannot be stored.
    """

    def __init__(self, settings: AskedRater, drawn: Drawn | None = None, spare: Sequence[Path] = ()) -> None:
        self.settings, self.drawn, self.prompt = settings, drawn, load_prompt(settings.prompt)
        self.backend: Backend = make_backend(settings, self.prompt)
        key = _key(settings, self.prompt, self.backend)
        place = place_of_answers("ratings", settings.store, getattr(settings.backend, "base_url", None))
        records = records_of(self.prompt.scores)
        self.store = Store(place, key, records, spare)
        # In earlier versions the key held the rater's name. Ratings that were paid for then are found there.
        self.named = Store(place, {"rater": settings.name} | key, records, spare)
        self.shard = Shard.read(settings.shard) if settings.shard else None

    @cached_property
    def stored(self) -> Stored[Rating]:
        """The ratings in the store, read on first use."""
        wanted = None if self.shard is None else self.shard.has
        return (
            self.named.read(wanted)  # of two equally good ratings, the one under the rater's name counts
            .beside(self.store.read(wanted))
            .anew(partial(anew, read=partial(rating_of, criteria=self.prompt.scores)))
        )

    def blocks(self, pool: Artifact, columns: list[str]) -> Iterator[tuple[pa.RecordBatch, NDArray[np.bool_]]]:
        """Blocks of this worker's samples, in the order of the pool, and for each a mask of those to rate."""
        start = 0
        for block in pool.batches(columns, rows=BLOCK):
            drawn = np.ones(len(block), bool) if self.drawn is None else self.drawn.mask[start : start + len(block)]
            start += len(block)
            if self.shard:
                mine = self.shard.has(block["id"])
                block, drawn = block.filter(pa.array(mine)), drawn[mine]
            yield block, drawn

    def is_final(self, rating: Rating | None) -> bool:
        """Whether a sample with this stored rating needs no further request."""
        return rating is not None and is_final(rating, self.backend, self.settings.max_attempts)

    def final_among(self, ids: pa.Array) -> int:
        """How many of the samples need no further request."""
        counts = self.stored.count(ids, ["status", "attempts"])
        return sum(
            count
            for (status, attempts), count in counts.items()
            if self.is_final(Rating.model_construct(id="", status=status, attempts=attempts))
        )

    def earlier(self, pool: Artifact) -> Earlier:
        """What the store has for the samples of `pool` that are to be rated."""
        samples = final = 0
        tokens, answers = Counter[str](), Counter[str]()
        for block, drawn in self.blocks(pool, ["id"]):
            ids = block["id"].filter(pa.array(drawn))
            samples += len(ids)
            final += self.final_among(ids)
            tokens.update(self.stored.sums(ids, TOKENS))
            for (status, attempts), count in self.stored.count(ids, ["status", "attempts"]).items():
                answers[status] += count * attempts
        return Earlier(samples, final, tokens, answers["ok"], answers["unparsable"])

    def samples(self, block: pa.RecordBatch, drawn: NDArray[np.bool_]) -> Iterator[Sample]:
        """Id, text and stored rating of each sample of a block; the text is empty if it is not needed.

        A sample that is not `drawn` (n,) gets the status "not_asked" even if the store has its rating: the output must
        not depend on what was rated before.
        """
        ids, messages = block["id"], block["messages"]
        for row, (sample, known) in enumerate(zip(ids.to_pylist(), self.stored.find(ids), strict=True)):
            if not drawn[row]:
                yield sample, "", not_asked(sample)
                continue
            yield sample, "" if self.is_final(known) else as_text(messages[row].as_py()), known


def _key(settings: AskedRater, prompt: Prompt, backend: Backend) -> dict[str, object]:
    """What a rating depends on besides the sample. Ratings with equal keys are interchangeable."""
    sampling: dict[str, object] = {"temperature": settings.temperature}
    if settings.temperature > 0:
        sampling |= {"top_p": settings.top_p, "top_k": settings.top_k, "seed": settings.seed}
    own: dict[str, object] = {"prompt": prompt.hash, "sampling": sampling, "backend": dict(backend.identity)}
    return own | BACKENDS.origin(settings.backend.kind)  # another version of its package may answer differently
