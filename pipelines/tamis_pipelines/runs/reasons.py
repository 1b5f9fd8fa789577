"""Why a run failed: the failed steps with their own messages, each cause once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from tamis.core.stages import all_stages
from tamis_pipelines.runs.cells import FailedCell, failed_cells
from tamis_pipelines.runs.steps import Status, Step, Work, unplanned_failures
from tamis_pipelines.runs.words import NO_MESSAGE, ended_from_outside, too_large
from tamis_pipelines.runs.workflow import Workflow

_MOST_NAMES = 6


@dataclass(frozen=True)
class Reason:
    """A cause.

    Attributes:
        what: what failed, as in "select of toomany" or "the run".
        words: the message of the step; it may have several lines.
        step: the step that failed; empty if the run as a whole failed.
        pod: the first pod with this message; empty if there is none.
        began: when that pod was created; the cluster files stored logs by this date.
        namespace: the namespace of the pod.
        cached: whether the failed result is from the cache, so that the same settings fail again. The pod is then that
            of the step that reports the failure.
        too_large: whether the workflow became too large for Kubernetes, so that the same settings fail again.
    """

    what: str
    words: str
    step: str = ""
    pod: str = ""
    began: str = ""
    namespace: str = ""
    cached: bool = False
    too_large: bool = False

    @property
    def silent(self) -> bool:
        """Whether the step left no message."""
        return self.words.endswith(NO_MESSAGE)


@dataclass(frozen=True)
class _Failure:
    """One failed piece of work, before the same causes are put together."""

    step: str
    names: tuple[str, ...]
    words: str
    pod: str = ""
    began: str = ""
    attempts: int = 1
    cached: bool = False


def reasons_of(workflow: Workflow, steps: Sequence[Step]) -> list[Reason]:
    """The causes in a workflow's manifest, in the order in which they arose, with those of failed cells."""
    failures = list(_failures(steps))
    for behind, words, pod in unplanned_failures(workflow):
        if not ended_from_outside(words):
            what = f"Kubeflow's own pod that starts {behind or 'the run'}"
            failures.append(_Failure(what, (), words or f"it {NO_MESSAGE}", pod))
    found = [replace(reason, namespace=workflow.namespace) for reason in _together(failures)]
    if size := too_large(workflow.message):
        found.insert(0, _too_large(workflow, *size))
    elif workflow.message and not workflow.stopped and not found:
        found.append(Reason("the run", workflow.message))
    return found


def _too_large(workflow: Workflow, size: int, limit: int) -> Reason:
    return Reason(
        "the run",
        f"its workflow object grew to {size:,} bytes, and Kubernetes stores at most {limit:,}. Kubeflow then ends a "
        "run at once, without report and without outcome\n"
        "to do:   raise kubeflow.compiled.cells_per_pod, use fewer cells, or leave out judging; pods of the run may "
        f"still be running: kubectl -n {workflow.namespace} get pods -l workflows.argoproj.io/workflow={workflow.name}",
        too_large=True,
    )


def with_failed_cells(steps: Sequence[Step]) -> list[Step]:
    """The steps, with failed cells marked. A failed cell is a success to Kubeflow; a later step names it."""
    marked = list(steps)
    failed = [work for step in steps for work in step.works if work.status is Status.FAILED]
    for cell in [cell for work in failed for cell in failed_cells(work.last_words)[1]]:
        first = _step_of(cell, steps)
        if first is None:
            continue
        at = steps.index(first)
        marked[at] = _marked(marked[at], cell.name, failed=True)
        for later in range(at + 1, len(steps)):
            marked[later] = _marked(marked[later], cell.name, failed=False)
    return marked


def _marked(step: Step, name: str, *, failed: bool) -> Step:
    def mark(work: Work) -> Work:
        if name not in work.names:
            return work
        if failed:
            return replace(work, failed=(*work.failed, name))
        return replace(work, skipped=(*work.skipped, name))

    return replace(step, works=tuple(map(mark, step.works)))


def _step_of(cell: FailedCell, steps: Sequence[Step]) -> Step | None:
    """The step in which a cell failed; the last step for this cell if no step has the stage's name."""
    mine = [step for step in steps if any(cell.name in work.names for work in step.works)]
    named = [step for step in mine if step.name == _command_of(cell.artifact)]
    found = named or mine
    return found[-1] if found else None


def _command_of(artifact: str) -> str:
    """The step that makes an artifact: "select" for "selection"."""
    return next((stage.command for stage in all_stages().values() if stage.makes == artifact), artifact)


def _failures(steps: Sequence[Step]) -> Iterator[_Failure]:
    works = [(step, work) for step in steps for work in step.works if work.status is Status.FAILED]
    for step, work in sorted(works, key=lambda one: one[1].began or "~"):
        last = work.attempts[-1] if work.attempts else None
        words, pod, began = work.last_words, last.pod if last else "", last.began if last else ""
        count, cells = failed_cells(words)
        for cell in cells:
            yield _of_cell(cell, steps, pod, began)
        if not cells:
            words = words or f"it {NO_MESSAGE}"
            yield _Failure(step.name, work.names, words, pod, began, len(work.attempts))
        elif count > len(cells):
            yield _Failure(step.name, (), f"{count - len(cells)} more cells failed; see the report", pod, began)


def _of_cell(cell: FailedCell, steps: Sequence[Step], pod: str, began: str) -> _Failure:
    step = _step_of(cell, steps)
    work = next((work for work in step.works if cell.name in work.names), None) if step else None
    name = step.name if step else cell.artifact
    if work is not None and work.attempts:
        return _Failure(name, (cell.name,), cell.reason, work.attempts[-1].pod, work.attempts[-1].began)
    return _Failure(name, (cell.name,), cell.reason, pod, began, cached=True)


def _together(failures: Iterable[_Failure]) -> Iterator[Reason]:
    """The failures; those with the same step and message are one."""
    by_cause: dict[tuple[str, str], list[_Failure]] = {}
    for failure in failures:
        by_cause.setdefault((failure.step, failure.words), []).append(failure)
    for (step, words), same in by_cause.items():
        names = list(dict.fromkeys(", ".join(failure.names) for failure in same if failure.names))
        of = f" of {listed(names)}" if names else ""
        times = f" ({len(same)} times for the same reason)" if len(same) > 1 else ""
        first = same[0]
        attempts = f", after {first.attempts} attempts" if first.attempts > 1 else ""
        yield Reason(f"{step}{of}{times}{attempts}", words, step, first.pod, first.began, cached=first.cached)


def listed(names: Sequence[str], most: int = _MOST_NAMES) -> str:
    """Names as a list in a sentence, with the number of those beyond `most`."""
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} others"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
