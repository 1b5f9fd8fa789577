"""Results of a function for many items, computed by several processes, in the order of the items."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from queue import SimpleQueue
from typing import IO, Any, TypeVar

from tamis.core.errors import UnexpectedError

Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 2  # items per process that are read, but whose results are not used yet
_LENGTH = 8  # bytes that hold the length of a message
# A child does not run the caller's main module again, as `multiprocessing` would: it may be a script without a guard.
_CHILD = "import sys; sys.path[:] = {path!r}; from tamis.core.workers import _serve; _serve({function!r})"


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], processes: int, *, alone: int = 0
) -> Generator[Result]:
    """The results of `function` for `items`, in their order, whatever the number of processes.

    Memory holds about `2 * processes` items with their results. An error, of `function` or of `items`, is raised in
    the place of its result. Processes start only if there are enough items, and end with the iteration.

    Args:
        function: a function of a module; its name is given to the processes.
        items: what can be pickled, as can the results.
        processes: number of processes; with 1, everything is computed in this one.
        alone: the first items, which are computed in this process, because starting others takes about a second.

    Raises:
        UnexpectedError: when a process ends without a result, as happens when memory runs out.
    """
    rest = iter(items)
    yield from map(function, rest if processes == 1 else islice(rest, alone))
    if processes > 1 and (first := next(rest, None)) is not None:
        with _Workers(function, processes) as workers:
            yield from workers.results(first, rest)


class _Workers:
    """Processes that compute a function. Use it as a context manager, which ends them."""

    def __init__(self, function: Callable[[Any], Any], processes: int) -> None:
        name = f"{function.__module__}:{function.__qualname__}"
        command = [sys.executable, "-c", _CHILD.format(path=sys.path, function=name)]
        self._ahead = _AHEAD * processes
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        self._all = []
        for _ in range(processes):
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._all.append(child)
            self._idle.put(child)
        self._threads = ThreadPoolExecutor(processes, "worker")

    def __enter__(self) -> _Workers:
        return self

    def results(self, first: Any, rest: Iterator[Any]) -> Iterator[Any]:
        """The results for the items, in their order."""
        waiting = deque([self._threads.submit(self._result, first)])
        more = True
        while waiting:
            while more and len(waiting) < self._ahead:
                try:
                    waiting.append(self._threads.submit(self._result, next(rest)))
                except StopIteration:
                    more = False
                except Exception as error:  # raised when its turn comes
                    failed: Future[Any] = Future()
                    failed.set_exception(error)
                    waiting.append(failed)
                    more = False
            yield waiting.popleft().result()

    def _result(self, item: Any) -> Any:
        child = self._idle.get()
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            _send(child.stdin, item)
            worked, result = _received(child.stdout)
        except (EOFError, OSError):
            raise UnexpectedError(
                f"a worker process ended with the exit code {child.wait()}, as happens when memory runs out",
                action="use fewer processes, or give this step more memory",
            ) from None
        finally:
            self._idle.put(child)
        if not worked:
            raise result
        return result

    def __exit__(self, *_: object) -> None:
        for child in self._all:
            child.kill()  # it holds nothing that outlives it
        self._threads.shutdown(cancel_futures=True)
        for child in self._all:
            child.wait()
            for pipe in (child.stdin, child.stdout):
                assert pipe is not None
                with suppress(OSError):  # what was not sent yet cannot be sent any more
                    pipe.close()


def _serve(function: str) -> None:
    """Answer items on standard input with results, until it is closed; what is printed goes to standard error."""
    import importlib

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends this one
    source, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    module, _, name = function.partition(":")
    work = getattr(importlib.import_module(module), name)
    while True:
        try:
            item = _received(source)
        except EOFError:
            return
        try:
            answer = (True, work(item))
        except Exception as error:
            answer = (False, error)
        _send(answers, answer)


def _send(pipe: IO[bytes], value: Any) -> None:
    data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.write(len(data).to_bytes(_LENGTH, "little"))
    pipe.write(data)
    pipe.flush()


def _received(pipe: IO[bytes]) -> Any:
    head = pipe.read(_LENGTH)
    if len(head) < _LENGTH:
        raise EOFError
    data = pipe.read(int.from_bytes(head, "little"))
    return pickle.loads(data)
