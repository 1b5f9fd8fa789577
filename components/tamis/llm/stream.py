"""Sends many concurrent requests, from a plain iterator to a plain iterator; the event loop runs in its own thread."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from tamis.llm.client import Call, ChatClient, ServiceError
from tamis.llm.faults import Fault
from tamis.llm.replies import Reply
from tamis.llm.settings import ServiceSettings

Job = TypeVar("Job")
Request = TypeVar("Request", contravariant=True)
Outcome = TypeVar("Outcome")
Answered = TypeVar("Answered", covariant=True)
_TOGETHER = 16  # requests handed over together, because waking the other thread costs more than a request


class Asker(Protocol[Request, Answered]):
    """Answers requests, many of them concurrently. Made and used inside one event loop."""

    async def __aenter__(self) -> Any:
        """Prepare."""

    async def __aexit__(self, *details: Any) -> None:
        """Release all resources."""

    async def ask(self, request: Request, /) -> Answered:
        """The answer to one request."""


def stream(
    settings: ServiceSettings, jobs: Iterator[Job], call: Callable[[Job], Call], ahead: int = 2
) -> Iterator[list[tuple[Job, Reply | Fault]]]:
    """Send all of `jobs` to a service; `ahead` jobs are read per concurrent request.

    See `Asking.stream`.

    Raises:
        ServiceError: when the service answers no request; earlier answers have been yielded.
        MissingExtraError: when the package openai is not installed.
        SettingsError: when the key's environment variable is not set.
    """
    clients: list[ChatClient] = []

    def make() -> ChatClient:
        clients.append(ChatClient(settings))
        return clients[0]

    def all_jobs() -> Iterator[Job]:
        yield from jobs
        clients[0].expects_more = False

    with Asking[Call, "Reply | Fault"](make) as asking:
        # At first only few jobs are read: it is unknown how many the service can handle, and whether its answers help.
        yield from asking.stream(all_jobs(), call, ahead=lambda: ahead * clients[0].at_once)


class Asking(Generic[Request, Outcome]):
    """A thread with an event loop and an asker in it. Use it as a context manager, or call `start` and `close`."""

    def __init__(self, make: Callable[[], Asker[Request, Outcome]]) -> None:
        self._make = make
        self._done: queue.SimpleQueue[tuple[Any, Outcome | BaseException]] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="llm-client", daemon=True)

    def stream(
        self, jobs: Iterator[Job], call: Callable[[Job], Request], *, ahead: Callable[[], int]
    ) -> Iterator[list[tuple[Job, Outcome]]]:
        """Send all of `jobs`.

        `jobs` is read in the caller's thread, and only as far as requests can be sent soon. It may therefore depend on
        earlier answers, and end early.

        Args:
            jobs: jobs of any type.
            call: makes the request of a job; called in the caller's thread.
            ahead: returns how many unanswered jobs may be read.

        Yields:
            Jobs with their outcomes, in the order of arrival; outcomes that arrive together are yielded together.

        Raises:
            ServiceError: if the asker raised it, after all requests under way have been yielded.
            Exception: any other exception of the asker, at once.
        """
        pending, failure, ended = 0, None, False
        while True:
            group: list[tuple[Any, Request]] = []
            while not ended and failure is None and pending < ahead() and len(group) < _TOGETHER:
                job = next(jobs, _END)
                if job is _END:
                    ended = True
                else:
                    group.append((job, call(job)))  # type: ignore[arg-type]
                    pending += 1
            if group:
                self._loop.call_soon_threadsafe(self._begin, group)
            if len(group) == _TOGETHER and self._done.empty():
                continue
            if not pending:
                break
            outcomes: list[tuple[Job, Outcome]] = []
            for job_done, outcome in self._take():
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

    def start(self) -> None:
        """Start the thread, and make the asker.

        Raises:
            Exception: if the asker cannot be made.
        """
        self._thread.start()
        if (error := self._ready.get()) is not None:
            self._thread.join()
            raise error

    def close(self) -> None:
        """Cancel all requests under way, and end the thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def __enter__(self) -> Asking[Request, Outcome]:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            asker = self._make()
        except BaseException as error:
            self._ready.put(error)
            return
        async with asker:
            self._asker, theirs = asker, asyncio.all_tasks()
            self._ready.put(None)
            await self._stop.wait()
            under_way = asyncio.all_tasks() - theirs
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    def _begin(self, group: Sequence[tuple[Any, Request]]) -> None:
        for job, request in group:
            task = self._loop.create_task(self._ask(job, request))
            self._tasks.add(task)  # the loop holds only weak references
            task.add_done_callback(self._tasks.discard)

    async def _ask(self, job: Any, request: Request) -> None:
        try:
            outcome: Outcome | BaseException = await self._asker.ask(request)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            outcome = error
        self._done.put((job, outcome))

    def _take(self) -> Iterator[tuple[Any, Outcome | BaseException]]:
        """The finished requests; waits for the first one."""
        yield self._done.get()
        while not self._done.empty():
            yield self._done.get()


_END = object()
