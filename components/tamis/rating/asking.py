"""Asking a rater: each sample once, and again while its answer does not parse and attempts are left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

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
    more: Callable[[], Sequence[tuple[str, str, Rating | None]]],
    *,
    max_attempts: int,
    keep: Callable[[Rating], None],
    enough: Callable[[int], bool] = lambda waiting: False,
) -> Iterator[list[Rating]]:
    """Rate samples.

    Args:
        backend: who is asked.
        more: gives the next samples: id, text, and what earlier attempts came to, if there were some. None means that
            there are no more, or none before those that were given are rated.
        max_attempts: most attempts at one sample, earlier ones included.
        keep: gets every rating that must not be lost, also those of attempts that another one follows.
        enough: gets the number of samples that wait for their answers; when it says so, no other is asked, and the
            answers that are under way are the last.

    Yields:
        Those of the ratings that came together that no other attempt follows; one rating per sample in the end.

    Raises:
        ModelError: when the backend leaves a request without an answer.
    """
    waiting: dict[str, Request] = {}
    earlier: dict[str, Rating] = {}
    again: list[Request] = []

    def next_group() -> Iterator[Request] | None:
        group = list(again)
        again.clear()
        if not group:
            for sample, text, rating in more():
                if rating is not None:
                    earlier[sample] = rating
                group.append(Request(sample, text, rating.attempts + 1 if rating else 1))
        return read(group) if group else None

    def read(group: list[Request]) -> Iterator[Request]:
        for request in group:
            if enough(len(waiting)):
                return
            waiting[request.id] = request
            yield request

    while not enough(0) and (first := next_group()) is not None:
        for answers in backend.answer(chain([first], iter(next_group, None))):
            finished = []
            for answer in answers:
                request = waiting.pop(answer.id)
                rating = rating_of(answer, request.attempt, earlier.pop(answer.id, None))
                if rating.status != "failed":
                    keep(rating)
                if rating.status == "failed" or is_final(rating, backend, max_attempts):
                    finished.append(rating)
                else:
                    earlier[answer.id] = rating
                    again.append(Request(answer.id, request.text, request.attempt + 1))
            yield finished
            if not backend.eager and enough(len(waiting)):
                return
        if waiting:
            raise ModelError(f"the rater gave no answer to {len(waiting)} samples, the first is {next(iter(waiting))}")
