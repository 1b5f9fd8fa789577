"""Suites: the tasks to run, and for each its metric, the examples in its prompt, and the number of samples."""

from __future__ import annotations

import random
import sys
import traceback
from collections.abc import Sequence
from contextlib import chdir, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from tamis.core.errors import InputError, SettingsError, TamisError
from tamis.core.hub_access import may_pass, with_datasets
from tamis.core.progress import load_packages, loading
from tamis.core.settings import Settings, load, shipped_or_own
from tamis.evaluation.checks import check_fields
from tamis.evaluation.listing import nearest

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager

    from tamis.evaluation.settings import EvaluationSettings

SUITES = Path(__file__).parent / "suites"


class SuiteTask(Settings):
    """One line of a suite: a task, group or tag of lm-eval or of the suite itself."""

    task: str = Field(description="name of a task, group or tag")
    metric: str = Field(description="headline metric, such as acc; with a filter, such as exact_match,flexible-extract")
    num_fewshot: int | None = Field(None, ge=0, description="examples in the prompt; null: the task's own number")
    samples: int | None = Field(None, ge=1, description="number of questions of each task, drawn by seed; null: all")
    differs: str = Field("", description="how it differs from the published benchmark; the report shows it")
    in_mean: bool = Field(True, description="whether it counts in the report's mean over the tasks")

    @property
    def key(self) -> tuple[str, str]:
        """The metric's name, and its filter or "none"."""
        name, _, filtered = self.metric.partition(",")
        return name, filtered or "none"


class Suite(Settings):
    """A versioned list of tasks."""

    version: str
    notes: str = ""
    tasks: list[SuiteTask] = Field(min_length=1)
    include_path: str | None = Field(
        None, description="folder of the suite's own task files, relative to the suite's file"
    )
    data_dir: str | None = Field(
        None, description="folder that relative data_files refer to, relative to the suite's file; null: include_path"
    )


@dataclass(frozen=True)
class Places:
    """Where a suite is, and its own tasks and data, if it has any."""

    file: Path
    tasks: Path | None
    data: Path | None


@dataclass(frozen=True)
class Entry:
    """A task or group that was loaded for a line of a suite."""

    line: SuiteTask
    item: Task | Group

    @property
    def name(self) -> str:
        """Its name in lm-eval's results."""
        name: str = getattr(self.item, "task_name", None) or self.item.name
        return name

    @property
    def tasks(self) -> list[Task]:
        """The tasks of the group, or the task itself."""
        from lm_eval.api.group import Group

        return list(self.item.get_all_tasks()) if isinstance(self.item, Group) else [self.item]


def open_suite(settings: EvaluationSettings) -> tuple[Suite, Places]:
    """Read the suite that the settings name.

    Raises:
        SettingsError: when it does not exist or is wrong, or when one of its folders does not exist.
    """
    file = shipped_or_own(SUITES, settings.suite, kind="suite", where="evaluation.suite").absolute()
    suite = load(Suite, file)
    tasks = file.parent / suite.include_path if suite.include_path else None
    own_data = file.parent / suite.data_dir if suite.data_dir else tasks
    data = Path(settings.data_dir).absolute() if settings.data_dir else own_data
    for folder in (tasks, data):
        if folder is not None and not folder.is_dir():
            raise SettingsError(
                f"the suite {file.name} needs the folder {folder}, but there is no such folder",
                action="correct include_path or data_dir in the suite, or evaluation.data_dir",
            )
    return suite, Places(file, tasks, data)


def index_of(suite: Suite, places: Places) -> TaskManager:
    """Return lm-eval's index of tasks: only the suite's own if those are enough, because reading all takes seconds."""
    load_packages("lm_eval.tasks")
    from lm_eval.tasks import TaskManager

    if places.tasks is not None:
        own = own_index(places.tasks)
        if not own.all_groups and {line.task for line in suite.tasks} <= set(own.all_tasks):
            return own
    with loading("lm-eval's list of tasks"):
        return TaskManager(include_path=str(places.tasks) if places.tasks else None)


def own_index(folder: Path) -> TaskManager:
    """Return lm-eval's index of only the tasks in `folder`."""
    load_packages("lm_eval.tasks")
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(folder), include_defaults=False)


def load_entries(manager: TaskManager, suite: Suite, places: Places) -> list[Entry]:
    """Create lm-eval's task objects, with the suite's few-shot numbers. This reads or downloads their data.

    Raises:
        SettingsError: when a task, a metric, a split or a field is unknown.
        InputError: when a task's data cannot be read.
    """
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()  # in a log, every update of a bar would be a line
    with loading("the questions of the suite's tasks"), with_datasets():
        entries = [Entry(line, item) for line in suite.tasks for item in _load(manager, line.task, places)]
    for entry in entries:
        _check_metric(entry, places)
        for task in entry.tasks:
            check_fields(task, places.file)
        if entry.line.num_fewshot is not None:
            for task in entry.tasks:
                task.set_config("num_fewshot", entry.line.num_fewshot)
    return entries


def draw(entries: Sequence[Entry], settings: EvaluationSettings) -> dict[str, list[int]]:
    """Return the rows to ask by task name, in ascending order; tasks that are asked in full are not in it.

    The rows are those that `random.sample` draws, so a number of samples and a seed mean the same questions everywhere.
    """
    drawn: dict[str, list[int]] = {}
    for entry in entries:
        count = settings.samples or entry.line.samples
        for task in entry.tasks:
            rows = len(task.eval_docs)
            if count is not None and count < rows:
                drawn[task.task_name] = sorted(random.Random(settings.seed).sample(range(rows), count))
    return drawn


def described(suite: Suite, places: Places, entries: Sequence[Entry]) -> dict[str, Any]:
    """Return what a reader of the scores must know about the suite: its notes, and how each task was asked."""
    tasks = [
        {
            "task": entry.name,
            "num_fewshot": entry.tasks[0].config.num_fewshot or 0,
            "differs": entry.line.differs,
            "in_mean": entry.line.in_mean,
        }
        for entry in entries
    ]
    return {"name": places.file.stem, "version": suite.version, "notes": suite.notes.strip(), "tasks": tasks}


def _load(manager: TaskManager, name: str, places: Places) -> list[Task | Group]:
    """Load the task or group called `name`, or all tasks of a tag.

    lm-eval reads relative data files from the working folder, so the data's folder is the working folder meanwhile.
    """
    if name not in manager.all_tasks:
        close = nearest(name, manager.all_tasks)
        raise SettingsError(
            f"{places.file}: lm-eval has no task '{name}'",
            allowed=f"for example {', '.join(close)}" if close else "the names that `lm-eval ls tasks` lists",
        )
    try:
        with chdir(places.data) if places.data else nullcontext():
            loaded = manager.load(name)
    except Exception as error:
        raise _not_loaded(manager, name, places, error) from error
    inside = {child for children in loaded["group_map"].values() for child in children}
    tops = {key: group for key, group in loaded["groups"].items() if key not in inside}
    return list(tops.values()) or list(loaded["tasks"].values())


def _not_loaded(manager: TaskManager, name: str, places: Places, error: Exception) -> TamisError:
    """Return the error that says why lm-eval could not load the task `name`: its data or its file."""
    import datasets

    words = next(iter(str(error).strip().splitlines()), "")
    splits = {
        f"{which}: {split}"
        for which, split in (manager.task_index[name].cfg or {}).items()
        if which.endswith("_split") and isinstance(error, KeyError) and split in str(error)
    }
    if splits:
        return SettingsError(
            f"{places.file}: the task '{name}' uses a split that its data do not have ({', '.join(sorted(splits))})",
            action="correct the split in the task's file",
        )
    library = Path(datasets.__file__).parent
    inside = any(library in Path(frame.filename).parents for frame in traceback.extract_tb(error.__traceback__))
    if isinstance(error, OSError | datasets.exceptions.DatasetsError) or inside:
        return InputError(
            f"cannot read the data of the task '{name}': {type(error).__name__}: {words}",
            action="check evaluation.data_dir; without a network, fill the Hugging Face cache (HF_HOME) beforehand",
            permanent=not may_pass(error),
        )
    return SettingsError(
        f"{places.file}: lm-eval cannot load the task '{name}': {type(error).__name__}: {words}",
        action="correct the task's file: its data must have the splits and fields, and lm-eval the metrics",
    )


def _check_metric(entry: Entry, places: Places) -> None:
    """Check, before hours of work, that the results will have the headline metric."""
    from lm_eval.api.group import Group

    if isinstance(entry.item, Group):
        listed = entry.item.aggregate_metric_list or []
        found = {(config.metric, name) for config in listed for name in config.filter_list or _filters(entry.tasks[0])}
    else:
        found = {(metric, name) for metric in entry.item.aggregation() for name in _filters(entry.item)}
    if entry.line.key not in found:
        raise SettingsError(
            f"{places.file}: '{entry.name}' has no metric '{','.join(entry.line.key)}'",
            allowed=" or ".join(sorted(",".join(key) for key in found)) or "none: this group has no metrics",
        )


def _filters(task: Task) -> list[str]:
    return [config["name"] for config in task.get_config("filter_list") or []] or ["none"]
