"""Asking a rater: each sample once, and again while its answer does not parse and attempts are left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tamis.core.errors import ModelError
from tamis.rating.backend import Backend, Request
from tamis.rating.records import Rating, rating_of


def is_final(rating: Rating, backend: Backend, max_attempts: int) -> bool:
    """Whether asking again would be useless or is not allowed. What failed for technical reasons may be tried again."""
    if rating.status == "unparsable":
        return backend.deterministic or rating.attempts >= max_attempts
    return rating.status != "failed"


def ask(
    backend: Backend,
    samples: Sequence[tuple[str, str, Rating | None]],
    *,
    max_attempts: int,
    keep: Callable[[Rating], None],
) -> Iterator[list[Rating]]:
    """Rate samples.

    Args:
        backend: who is asked.
        samples: id, text, and what earlier attempts came to, if there were some.
        max_attempts: most attempts at one sample, earlier ones included.
        keep: gets every rating that must not be lost, also those of attempts that another one follows.

    Yields:
        Those of the ratings that came together that no other attempt follows; one rating per sample in the end.

    Raises:
        ModelError: when the backend leaves a request without an answer.
    """
    texts = {sample: text for sample, text, _ in samples}
    earlier = {sample: rating for sample, _, rating in samples if rating is not None}
    waiting = {sample: Request(sample, text, rating.attempts + 1 if rating else 1) for sample, text, rating in samples}
    while waiting:
        again: dict[str, Request] = {}
        for answers in backend.answer(list(waiting.values())):
            finished = []
            for answer in answers:
                request = waiting.pop(answer.id)
                rating = rating_of(answer, request.attempt, earlier.get(answer.id))
                if rating.status != "failed":
                    keep(rating)
                if rating.status == "failed" or is_final(rating, backend, max_attempts):
                    finished.append(rating)
                else:
                    earlier[answer.id] = rating
                    again[answer.id] = Request(answer.id, texts[answer.id], request.attempt + 1)
            yield finished
        if waiting:
            raise ModelError(f"the rater gave no answer to {len(waiting)} samples, the first is {next(iter(waiting))}")
        waiting = {sample: again[sample] for sample in texts if sample in again}
