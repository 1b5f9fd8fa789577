"""The steps of a run, each with its pieces of work: one, or one for each rater, cell or group of cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from tamis_pipelines.runs.plan import PlannedStep, planned_steps
from tamis_pipelines.runs.words import ended_from_outside, words_of
from tamis_pipelines.runs.workflow import Node, Place, Workflow, output

_FAILED = frozenset({"Failed", "Error"})
_ALL_ATTEMPTS = frozenset({"Retry"})  # types of nodes that stand for the attempts of another
_NO_POD = frozenset({"Retry", "DAG", "Steps", "StepGroup", "TaskGroup", "Skipped", "Suspend"})


class Status(StrEnum):
    """The state of a piece of work."""

    WAITING = "waiting"  # for earlier steps
    PENDING = "pending"  # its pod waits for a node, a volume or an image
    RUNNING = "running"
    DONE = "done"
    CACHED = "cached"  # done by an earlier run
    FAILED = "failed"
    UNFINISHED = "unfinished"  # was under way when the run ended
    OMITTED = "not run"


@dataclass(frozen=True)
class Attempt:
    """One pod that tried to do a piece of work.

    Attributes:
        number: from 1.
        failed: whether the pod ended without success.
        words: what the pod says: why it failed, or what it waits for.
        pod: its name.
        began: when it was created, as in "2026-11-30T00:04:36Z".
    """

    number: int
    failed: bool
    words: str
    pod: str
    began: str


@dataclass(frozen=True)
class Work:
    """One piece of work of a step.

    Attributes:
        names: the raters, cells or base models that it is for; empty where it is for the whole run.
        status: its state.
        attempts: its pods, the last one last.
        words: why it failed, where it had no pod.
        failed: those of `names` whose result is a failure, although its pod is a success to Kubeflow.
        skipped: those of `names` for which there was nothing to do, because an earlier step of theirs failed.
        began, ended: times as in "2026-11-30T00:04:36Z"; empty where there is none.
    """

    names: tuple[str, ...]
    status: Status
    attempts: tuple[Attempt, ...] = ()
    words: str = ""
    failed: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    began: str = ""
    ended: str = ""

    @property
    def last_words(self) -> str:
        """What its last pod says, or why there was no pod; empty if there is no message."""
        return self.attempts[-1].words if self.attempts else self.words


@dataclass(frozen=True)
class Step:
    """A step.

    Attributes:
        name: its name, as in "evaluate".
        title: a name that no other step has, as in "evaluate (bases)".
        works: its pieces of work, in the order of the loop's list.
        several: whether it works for several raters or cells, in one pod or in one for each.
    """

    name: str
    title: str
    works: tuple[Work, ...]
    several: bool = False


class _Nodes:
    """The nodes of a workflow by place."""

    def __init__(self, workflow: Workflow) -> None:
        self._at: dict[tuple[tuple[str, ...], tuple[int, ...]], list[tuple[Place, Node]]] = {}
        for place, node in workflow.nodes:
            self._at.setdefault((place.key, place.iteration), []).append((place, node))
        for found in self._at.values():
            found.sort(key=lambda one: one[0].attempts)

    def at(self, key: tuple[str, ...], iteration: tuple[int, ...]) -> list[Node]:
        return [node for _, node in self._at.get((key, iteration), ())]

    def iterations(self, key: tuple[str, ...]) -> set[tuple[int, ...]]:
        """The iterations in which something below `key`'s loop has begun."""
        return {iteration for found, iteration in self._at if found[: len(key)] == key}


def steps_of(workflow: Workflow, *, ended: bool) -> list[Step]:
    """The steps of a workflow. `ended`: the run is over, so nothing waits or runs."""
    nodes = _Nodes(workflow)
    return [_step(workflow, nodes, planned, ended=ended) for planned in planned_steps(workflow)]


def unplanned_failures(workflow: Workflow) -> Iterator[tuple[str, str, str]]:
    """Failed pods that belong to no step, such as those with which Kubeflow starts a loop.

    Yields:
        The names of the steps that it would have started, its message, and its name.
    """
    planned = planned_steps(workflow)
    known = {step.key for step in planned} | {(*step.key, "executor") for step in planned}
    known |= {_driver_of(step.key) for step in planned}
    for place, node in workflow.nodes:
        if node["phase"] not in _FAILED or node["type"] in _NO_POD or place.key in known:
            continue
        # A loop's driver is inside what it begins; the driver of any other group of steps is beside it.
        group = place.key[:-1] if place.key[-1].startswith("iteration") else _begun_by(place.key)
        behind = [step.name for step in planned if step.key[: len(group)] == group]
        yield ", ".join(dict.fromkeys(behind)), words_of(node.get("message") or ""), workflow.pod_of(node)


def _driver_of(key: tuple[str, ...]) -> tuple[str, ...]:
    return (*key[:-1], f"{key[-1]}-driver")


def _begun_by(key: tuple[str, ...]) -> tuple[str, ...]:
    return (*key[:-1], key[-1].removesuffix("-driver"))


def _step(workflow: Workflow, nodes: _Nodes, planned: PlannedStep, *, ended: bool) -> Step:
    iterations: set[tuple[int, ...]] = set()
    if planned.loops:
        begun = nodes.iterations(planned.key[:-1])
        iterations |= {iteration for iteration in begun if len(iteration) == len(planned.loops)}
    if len(planned.loops) == 1:
        items = planned.loops[0].items
        expected = len(items) if items is not None else _counted(nodes, planned.key)
        iterations |= {(number,) for number in range(expected)}
    if not planned.loops:
        iterations.add(())
    works = tuple(_work(workflow, nodes, planned, iteration, ended=ended) for iteration in sorted(iterations))
    return Step(planned.name, planned.title, works, several=bool(planned.loops or planned.cells))


def _counted(nodes: _Nodes, key: tuple[str, ...]) -> int:
    """The number of iterations as Kubeflow has counted them when the loop began; 0 before."""
    for depth in range(len(key)):
        for node in nodes.at((*key[:depth], "iteration-driver"), ()):
            if count := output(node, "iteration-count"):
                return int(count)
    return 0


def _work(workflow: Workflow, nodes: _Nodes, planned: PlannedStep, iteration: tuple[int, ...], *, ended: bool) -> Work:
    named = [loop.names(at) for loop, at in zip(planned.loops, iteration, strict=True)]
    if len(named) > 1:
        named = [(", ".join(name for names in named for name in names),)]
    names = named[0] if named else planned.cells
    task, driver = nodes.at(planned.key, iteration), nodes.at(_driver_of(planned.key), iteration)
    executor = nodes.at((*planned.key, "executor"), iteration)
    pods = [node for node in [*task, *executor] if node["type"] not in _NO_POD]
    attempts = tuple(_attempt(workflow, number, node) for number, node in enumerate(pods, 1))
    work = Work(
        names,
        status=_status(task, driver, executor, pods),
        attempts=attempts,
        began=min((node["startedAt"] for node in [*driver, *task] if node.get("startedAt")), default=""),
        ended=max((node["finishedAt"] for node in task if node.get("finishedAt")), default=""),
    )
    if work.status is Status.FAILED and not attempts:
        work = _not_started(workflow, work, task, driver)
    return _over(work) if ended else work


def _not_started(workflow: Workflow, work: Work, task: Sequence[Node], driver: Sequence[Node]) -> Work:
    """A failed piece of work that never had a pod, with the pod by which Kubeflow should have started it."""
    pods = [node for node in driver if node["type"] not in _NO_POD]
    attempts = [_attempt(workflow, number, node) for number, node in enumerate(pods, 1) if node["phase"] in _FAILED]
    if attempts and not ended_from_outside(attempts[-1].words):
        attempts[-1] = replace(attempts[-1], words=f"Kubeflow could not start it: {attempts[-1].words}")
    words = next((message for node in task if (message := node.get("message"))), "")
    return replace(work, attempts=tuple(attempts), words=words)


def _attempt(workflow: Workflow, number: int, node: Node) -> Attempt:
    failed = node["phase"] in _FAILED
    message = node.get("message") or ""
    pod = workflow.pod_of(node)
    return Attempt(number, failed, words_of(message) if failed else message, pod, node.get("startedAt") or "")


def _status(task: Sequence[Node], driver: Sequence[Node], executor: Sequence[Node], pods: Sequence[Node]) -> Status:
    """The state of a piece of work from its nodes: of the task, its driver, what holds its pods, and its pods."""
    phase = _phase(task)
    cached = any(output(node, "cached-decision") == "true" for node in driver)
    skipped = bool(executor) and not pods and all(node["phase"] in ("Skipped", "Succeeded") for node in executor)
    if phase in ("Skipped", "Omitted"):
        return Status.OMITTED
    if phase in _FAILED or (not task and _phase(driver) in _FAILED):
        return Status.FAILED
    if phase == "Succeeded":
        return Status.CACHED if not pods and (cached or skipped) else Status.DONE
    if not task and not driver:
        return Status.WAITING
    if cached and task:
        return Status.CACHED
    return Status.PENDING if pods and pods[-1]["phase"] == "Pending" else Status.RUNNING


def _phase(nodes: Sequence[Node]) -> str:
    """The phase of what holds all attempts, or of the last attempt where nothing does; empty if there is none."""
    holders = [node for node in nodes if node["type"] in _ALL_ATTEMPTS]
    return str((holders or nodes)[-1]["phase"]) if nodes else ""


def _over(work: Work) -> Work:
    """The state of a piece of work in a run that has ended."""
    if work.status is Status.WAITING:
        return replace(work, status=Status.OMITTED)
    from_outside = work.status is Status.FAILED and ended_from_outside(work.last_words)
    if from_outside or work.status in (Status.PENDING, Status.RUNNING):
        return replace(work, status=Status.UNFINISHED)
    return work
