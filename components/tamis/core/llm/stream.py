"""Many requests at once, from a plain iterator to a plain iterator; the event loop runs in a thread of its own."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from tamis.core.llm.client import Call, ChatClient, Reply, ServiceError
from tamis.core.llm.faults import Fault
from tamis.core.llm.settings import ServiceSettings

Job = TypeVar("Job")
_AHEAD = 2  # requests handed over for each that may be under way, so that none is waited for


def stream(
    settings: ServiceSettings, jobs: Iterator[Job], call: Callable[[Job], Call]
) -> Iterator[list[tuple[Job, Reply | Fault]]]:
    """Ask for all of `jobs`, many at once.

    `jobs` is read in the caller's thread and only as far as requests can be sent soon, so that it may depend on
    answers that came before and may end early. When the caller stops, what is under way is given up.

    Args:
        settings: of the service.
        jobs: what is asked, of the caller's own kind.
        call: makes the request of a job; called in the caller's thread.

    Yields:
        Jobs with their outcomes, in the order of answering: at once those that came together.

    Raises:
        ServiceError: when the service answers nobody; what was answered until then has been yielded.
        MissingExtraError: when the package openai is not installed.
        SettingsError: when the key's environment variable is not set.
    """
    with _Loop[Job](settings) as loop:
        pending, failure, ended = 0, None, False
        while True:
            while not ended and failure is None and pending < _AHEAD * settings.concurrency:
                job = next(jobs, _END)
                if job is _END:
                    ended = True
                else:
                    loop.submit(job, call(job))  # type: ignore[arg-type]
                    pending += 1
            if not pending:
                break
            outcomes: list[tuple[Job, Reply | Fault]] = []
            for job_done, outcome in loop.take():
                pending -= 1
                if isinstance(outcome, ServiceError):
                    failure = failure or outcome
                elif isinstance(outcome, BaseException):
                    raise outcome
                else:
                    outcomes.append((job_done, outcome))
            if outcomes:
                yield outcomes
        if failure is not None:
            raise failure


_END = object()


class _Loop(Generic[Job]):
    """A thread with an event loop and a client in it."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._done: queue.SimpleQueue[tuple[Job, Reply | Fault | BaseException]] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="llm-client", daemon=True)

    def __enter__(self) -> _Loop[Job]:
        self._thread.start()
        if (error := self._ready.get()) is not None:
            self._thread.join()
            raise error
        return self

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            client = ChatClient(self._settings)
        except BaseException as error:
            self._ready.put(error)
            return
        async with client:
            self._client = client
            self._ready.put(None)
            await self._stop.wait()
            under_way = asyncio.all_tasks() - {asyncio.current_task()}
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    def submit(self, job: Job, call: Call) -> None:
        """Ask for one job."""
        asyncio.run_coroutine_threadsafe(self._ask(job, call), self._loop)

    async def _ask(self, job: Job, call: Call) -> None:
        try:
            outcome: Reply | Fault | BaseException = await self._client.ask(call)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            outcome = error
        self._done.put((job, outcome))

    def take(self) -> Iterator[tuple[Job, Reply | Fault | BaseException]]:
        """What is done; waits for the first."""
        yield self._done.get()
        while not self._done.empty():
            yield self._done.get()

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
