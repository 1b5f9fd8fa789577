"""The names of lm-eval's tasks and groups, and their data sets, cached because lm-eval is slow to list them.

It reads 14,000 files, which takes ten seconds on a quiet machine and more than a minute on a busy one.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from tamis.core.progress import load_packages, loading
from tamis.core.storage import write_bytes


class Listed(NamedTuple):
    """What a name of lm-eval stands for: the members of a group or tag, or a task's data set (None if unknown)."""

    inside: tuple[str, ...]
    dataset: str | None


def tasks_of_lm_eval(*, anew: bool = False) -> dict[str, Listed]:
    """Return every name that the installed lm-eval has; `anew` ignores the cached list."""
    file, made_from = _kept(), [version("lm_eval"), *_tasks_folder()]
    if not anew:
        with suppress(OSError, ValueError, TypeError, KeyError):
            kept = json.loads(file.read_text(encoding="utf-8"))
            if kept["of"] == made_from:
                return {name: Listed(tuple(inside), dataset) for name, (inside, dataset) in kept["tasks"].items()}
    load_packages("lm_eval.tasks")
    from lm_eval.tasks import TaskManager

    with loading("lm-eval's list of tasks, once per version"):
        found = listed(TaskManager().task_index)
    with suppress(OSError):  # the cache only saves time
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, json.dumps({"of": made_from, "tasks": found}).encode())
    return found


def listed(index: Mapping[str, Any]) -> dict[str, Listed]:
    """Return what lm-eval's index of tasks says about every name."""
    found = {}
    for name, entry in index.items():
        config = entry.cfg or {}
        if str(entry.kind.name) == "TAG":
            found[name] = Listed(tuple(sorted(entry.tags)), None)
        elif str(entry.kind.name) == "GROUP":
            found[name] = Listed(tuple(_names(config.get("task"))), None)
        else:
            dataset = config.get("dataset_path")
            found[name] = Listed((), dataset if isinstance(dataset, str) else None)
    return found


def datasets_of(name: str, tasks: Mapping[str, Listed]) -> set[str | None]:
    """Return the data sets of a task, or of all tasks in a group or tag; None stands for an unknown one."""
    found: set[str | None] = set()
    left, seen = [name], set[str]()
    while left:
        one = left.pop()
        if one in seen:
            continue
        seen.add(one)
        task = tasks.get(one)
        if task is not None and task.inside:
            left.extend(task.inside)
        else:
            found.add(task.dataset if task is not None else None)
    return found


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """Return up to three names with the spelling most similar to `name`."""
    return difflib.get_close_matches(name, list(names), n=3)


def _names(tasks: Any) -> Iterator[str]:
    """Yield the names in a group's list; its entries may be names, or tasks and groups with their own settings."""
    for task in tasks if isinstance(tasks, list) else [tasks]:
        if isinstance(task, dict):
            yield from _names(task.get("task"))
        elif task is not None:
            yield str(task)


def _tasks_folder() -> list[Any]:
    """Return the folder of lm-eval's tasks and the time of its last change."""
    spec = find_spec("lm_eval")
    assert spec is not None  # callers have checked that lm-eval is installed
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "tasks"
    return [str(folder), folder.stat().st_mtime]


def _kept() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tamis" / "lm-eval-tasks.json"
