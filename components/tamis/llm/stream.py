"""Many requests at once, from a plain iterator to a plain iterator; the event loop runs in a thread of its own."""

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
_TOGETHER = 16  # requests handed over at once: waking the other thread costs more than a request's own work here


class Asker(Protocol[Request, Answered]):
    """Answers one request at a time, many at once. Made and used inside one event loop."""

    async def __aenter__(self) -> Any:
        """Get ready."""

    async def __aexit__(self, *details: Any) -> None:
        """Let go of everything."""

    async def ask(self, request: Request, /) -> Answered:
        """The answer to one request."""


def stream(
    settings: ServiceSettings, jobs: Iterator[Job], call: Callable[[Job], Call], ahead: int = 2
) -> Iterator[list[tuple[Job, Reply | Fault]]]:
    """Ask a service for all of `jobs`, many at once, of which `ahead` are read for each that may be under way.

    See `Asking.stream`.

    Raises:
        ServiceError: when the service answers nobody; what was answered until then has been yielded.
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
        # Few are read before it is known how many at once the service bears, and whether its answers are of use.
        yield from asking.stream(all_jobs(), call, ahead=lambda: ahead * clients[0].at_once)


class Asking(Generic[Request, Outcome]):
    """A thread with an event loop and an asker in it. A context manager; or `start`, and `close` some time."""

    def __init__(self, make: Callable[[], Asker[Request, Outcome]]) -> None:
        self._make = make
        self._done: queue.SimpleQueue[tuple[Any, Outcome | BaseException]] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="llm-client", daemon=True)

    def stream(
        self, jobs: Iterator[Job], call: Callable[[Job], Request], *, ahead: Callable[[], int]
    ) -> Iterator[list[tuple[Job, Outcome]]]:
        """Ask for all of `jobs`.

        `jobs` is read in the caller's thread and only as far as requests can be sent soon, so that it may depend on
        answers that came before and may end early.

        Args:
            jobs: what is asked, of the caller's own kind.
            call: makes the request of a job; called in the caller's thread.
            ahead: gives how many jobs may be read that are not answered.

        Yields:
            Jobs with their outcomes, in the order of answering: at once those that came together.

        Raises:
            ServiceError: when the asker did, once all that was under way has been yielded.
            Exception: whatever else the asker raised, at once.
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
        """Make the asker.

        Raises:
            Exception: what making it raised.
        """
        self._thread.start()
        if (error := self._ready.get()) is not None:
            self._thread.join()
            raise error

    def close(self) -> None:
        """End what is under way, and the thread."""
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
            self._tasks.add(task)  # the loop itself holds them weakly
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
        """What is done; waits for the first."""
        yield self._done.get()
        while not self._done.empty():
            yield self._done.get()


_END = object()
