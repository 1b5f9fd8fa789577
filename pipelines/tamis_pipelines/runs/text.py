"""A run as text: a line for each step, and at the end what happened and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from urllib.parse import urlencode

from tamis_pipelines.runs.cells import failed_cells
from tamis_pipelines.runs.reasons import Reason, listed
from tamis_pipelines.runs.run import Run, State
from tamis_pipelines.runs.steps import Status, Step, Work

_MOST_NAMES = 3  # in a line of progress
_LONGEST_WORDS = 100  # characters of a reason there; the end has all of it
_FROM_CACHE = "from the cache"
_WITHOUT_RESULT = ("start-run", "require-all-cells", "note-outcome")  # steps that are never taken from the cache


def progress_of(step: Step) -> str:
    """The progress of a step, as in "12/36; 2 running: ds2-s1, ds2-s2; 1 failed: toomany"."""
    if not step.several:
        (work,) = step.works
        return "; ".join([_alone(work), *_repeated([work])])
    if not step.works or all(work.status is Status.WAITING for work in step.works):
        return Status.WAITING.value
    if all(work.status is Status.OMITTED for work in step.works):
        return Status.OMITTED.value
    by_status = {status: [name for work in step.works for name in _in(work, status)] for status in Status}
    done, cached = by_status[Status.DONE], by_status[Status.CACHED]
    total = sum(len(_items(work)) for work in step.works)
    parts = [f"{len(done) + len(cached)}/{total}"]
    if cached:
        parts.append(f"{'all' if len(cached) == total else len(cached)} {_FROM_CACHE}")
    for status in (Status.RUNNING, Status.PENDING, Status.FAILED, Status.UNFINISHED):
        if names := by_status[status]:
            parts.append(f"{len(names)} {status}{_named(names)}{_what_pods_wait_for(step, status)}")
    for how, names in (
        ("skipped", [name for work in step.works for name in work.skipped]),
        (Status.OMITTED.value, by_status[Status.OMITTED]),
    ):
        if names:
            parts.append(f"{len(names)} {how}")
    return "; ".join([*parts, *_repeated(step.works)])


def _items(work: Work) -> tuple[str, ...]:
    """The names that a piece of work is for; one empty name if it has none."""
    return work.names or ("",)


def _in(work: Work, status: Status) -> list[str]:
    """The items of a piece of work in one state; items that failed although their pod succeeded count as failed."""
    if status is Status.FAILED and work.status is not Status.FAILED:
        return list(work.failed)
    if work.status is not status:
        return []
    return [name for name in _items(work) if name not in work.failed and name not in work.skipped]


def _named(names: Sequence[str]) -> str:
    known = [name for name in names if name]
    return f": {listed(known, _MOST_NAMES)}" if known else ""


def _what_pods_wait_for(step: Step, status: Status) -> str:
    """The message of the first pending pod that has one, in parentheses."""
    pending = [work.last_words for work in step.works if work.status is Status.PENDING and work.last_words]
    return f" ({_short(pending[0])})" if status is Status.PENDING and pending else ""


def _alone(work: Work) -> str:
    if work.status is Status.CACHED:
        return _FROM_CACHE
    if work.status is Status.DONE:
        return f"done{_after(work.began, work.ended, 'in')}"
    if work.status is Status.FAILED:
        count, _ = failed_cells(work.last_words)
        return (
            f"failed: {_short(work.last_words)}" if not count else f"{count} failed {'cells' if count > 1 else 'cell'}"
        )
    if work.status is Status.PENDING and work.last_words:
        return f"{Status.PENDING}: {_short(work.last_words)}"
    return work.status.value


def _repeated(works: Sequence[Work]) -> Iterator[str]:
    """The pieces of work with more than one attempt, and why the last attempt but one failed; the first few causes."""
    causes: dict[tuple[int, str], list[str]] = {}
    for work in works:
        if work.status is not Status.FAILED and len(work.attempts) > 1:
            names = causes.setdefault((len(work.attempts), _short(work.attempts[-2].words)), [])
            names += [", ".join(work.names)] if work.names else []
    for (attempts, words), names in list(causes.items())[:_MOST_NAMES]:
        yield f"{f'{listed(names, _MOST_NAMES)}: ' if names else ''}{attempts} attempts ({words})"
    if len(causes) > _MOST_NAMES:
        yield f"{len(causes) - _MOST_NAMES} more reasons for further attempts"


def _short(words: str) -> str:
    first = (words.strip() or "no message").splitlines()[0]
    return first if len(first) <= _LONGEST_WORDS else first[: _LONGEST_WORDS - 1] + "…"


def changes(run: Run, seen: dict[str, str]) -> Iterator[str]:
    """A line for each step whose progress has changed, and for the run; `seen` holds the lines of earlier calls."""
    if not run.state.ended and seen.get("") != run.state:
        seen[""] = run.state
        yield f"run: {run.state.lower()}"
    for step in run.steps:
        now = progress_of(step)
        if now != seen.get(step.title, Status.WAITING.value):
            seen[step.title] = now
            yield f"{step.title}: {now}"


def table(run: Run) -> list[str]:
    """A line for each step, with the progress in a column."""
    width = max((len(step.title) for step in run.steps), default=0)
    return [f"  {step.title:{width}}  {progress_of(step)}" for step in run.steps]


def headline(run: Run) -> str:
    """The run's name, its state, and how long it has taken."""
    if run.state.ended:
        return f"{run.name}: {run.state}{_after(run.began, run.ended, 'after')}"
    return f"{run.name}: {run.state}{_after(run.began, datetime.now(UTC).isoformat(), 'for')}"


def ending(run: Run) -> list[str]:
    """The run's state, why it failed, where the logs are, and what cannot be read."""
    lines = [headline(run)]
    for reason in run.reasons:
        lines += _reason(reason, run)
    lines += _next(run)
    if run.unread:
        lines.append(f"  not read: {'; '.join(run.unread)}")
    return lines


def _next(run: Run) -> Iterator[str]:
    """What the user can expect of the same settings in another run; nothing where that does not help."""
    if run.state is State.SUCCEEDED or not run.reasons or any(reason.too_large for reason in run.reasons):
        return
    if any(reason.cached for reason in run.reasons):
        yield "  to do: fix the cause, and submit with --no-cache: otherwise the failure is taken from the cache again."
        yield "         Submit every run with --outcomes, and failures will not stay in the cache."
    elif any(work.status in (Status.DONE, Status.CACHED) for step in _with_results(run) for work in step.works):
        yield "  if you submit the same settings again, finished steps are taken from the cache"


def _with_results(run: Run) -> Iterator[Step]:
    return (step for step in run.steps if step.name not in _WITHOUT_RESULT)


def _reason(reason: Reason, run: Run) -> Iterator[str]:
    yield f"  {reason.what}:"
    yield from (f"    {line.removeprefix('  ')}" for line in reason.words.splitlines())
    if reason.cached:
        yield "    (the failed result is from the cache; the log is that of the step that reports it)"
    if reason.pod:
        yield f"    log:     kubectl -n {reason.namespace} logs {reason.pod} -c main"
        query = {"podname": reason.pod, "podnamespace": reason.namespace, "createdat": reason.began[:10]}
        yield f"    stored:  {run.url.partition('/#/')[0]}/k8s/pod/logs?{urlencode(query)}"


def _after(began: str, ended: str, word: str) -> str:
    try:
        total = datetime.fromisoformat(ended) - datetime.fromisoformat(began)
    except (TypeError, ValueError):  # there is none, or a server writes it in another form
        return ""
    hours, rest = divmod(max(0, int(total.total_seconds())), 3600)
    minutes, seconds = divmod(rest, 60)
    text = f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    return f" {word} {text}"
