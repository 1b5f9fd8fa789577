"""Checks lm-eval's own benchmarks in a suite: that they exist and, if their data are on this machine, that they fit.

Nothing is downloaded. Benchmarks that cannot be checked are listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from tamis.core.errors import InputError, TamisError
from tamis.core.hub import from_cache, is_prepared
from tamis.evaluation.checks import check_room
from tamis.evaluation.listing import Listed, datasets_of, listed, nearest, tasks_of_lm_eval
from tamis.evaluation.suite import Places, Suite, SuiteTask, index_of, load_entries, open_suite, own_index
from tamis_pipelines.checks.check import Check
from tamis_pipelines.checks.trainable import LOCAL, contexts
from tamis_pipelines.settings import RunSettings

_NAMES, _DATA = "evaluation.suite: names of its tasks", "evaluation.suite: data of lm-eval's tasks"


def benchmarks(settings: RunSettings) -> Iterator[Check]:
    """Check that lm-eval has every task of the suite, and that their splits, fields and metrics fit their data."""
    if settings.evaluation is None:
        return
    try:
        suite, places = open_suite(settings.evaluation)
    except TamisError:
        return  # another check reports it
    if find_spec("lm_eval") is None:
        yield Check(_NAMES, "note", "not checked, because lm-eval is not installed here")
        return
    own = {} if places.tasks is None else listed(own_index(places.tasks).task_index)
    known, unknown = _known(suite, own)
    yield _named(unknown, known, places) if unknown else Check.of(_NAMES, True, f"all {len(suite.tasks)} are known")
    lines = [line for line in suite.tasks if line.task in known]
    lines = [line for line in lines if not datasets_of(line.task, own) <= {*LOCAL}]  # `looked_at` checks those
    here = [line for line in lines if all(_is_here(dataset, places) for dataset in datasets_of(line.task, known))]
    if away := [line for line in lines if line not in here]:
        yield _not_here(away, known, places)
    if here:
        yield _fit(here, suite, places, contexts(settings))


def _known(suite: Suite, own: dict[str, Listed]) -> tuple[dict[str, Listed], list[str]]:
    """Return all known names, and the suite's unknown ones; reads lm-eval's names only if they are needed."""
    known, names = dict(own), {name for line in suite.tasks for name in _within(line.task, own)}
    for anew in (False, True):  # the cached list may be older than lm-eval's files
        if names <= set(known):
            break
        known = tasks_of_lm_eval(anew=anew) | own
    return known, [line.task for line in suite.tasks if line.task not in known]


def _within(name: str, own: Mapping[str, Listed]) -> set[str]:
    """Return a name and, for one of the suite's own groups, its members."""
    return {name, *(own[name].inside if name in own else ())}


def _named(unknown: list[str], known: Mapping[str, Listed], places: Places) -> Check:
    named = [
        f"'{name}'" + (f" (similar: {', '.join(near)})" if (near := nearest(name, known)) else "") for name in unknown
    ]
    seen = f"{places.file.name}: lm-eval has no task {', '.join(named)}"
    return Check(_NAMES, "failed", seen, "correct the names in the suite; `lm-eval ls tasks` lists all of them")


def _not_here(lines: list[SuiteTask], known: Mapping[str, Listed], places: Places) -> Check:
    names = ", ".join(line.task for line in lines)
    missing = {str(one) for line in lines for one in datasets_of(line.task, known) if one and not _is_here(one, places)}
    why = f"their data are not in this machine's Hugging Face cache ({', '.join(sorted(missing)[:5])})"
    if not missing:
        why = "lm-eval's files do not say where their data are"
    action = "the run will download them; make sure that it can"
    return Check(_DATA, "note", f"not checked: {names}, because {why}", action)


def _fit(lines: list[SuiteTask], suite: Suite, places: Places, most: list[int]) -> Check:
    names = ", ".join(line.task for line in lines)
    part = suite.model_copy(update={"tasks": lines})
    try:
        with from_cache():
            entries = load_entries(index_of(part, places), part, places)
        for task in (task for entry in entries for task in entry.tasks if task.OUTPUT_TYPE == "generate_until"):
            for context in most:
                check_room(task.task_name, task.config.generation_kwargs or {}, context, places.file)
    except InputError as error:
        return Check(
            _DATA, "note", f"not checked: {names}, because {error.problem}", "the run will download what is missing"
        )
    except TamisError as error:
        return Check.refused(_DATA, error)
    return Check.of(_DATA, True, f"{names}: their splits, fields, metrics and answer lengths fit")


def _is_here(dataset: str | None, places: Places) -> bool:
    """Return whether a data set is in local files, in the suite's data folder, or in this machine's cache."""
    if dataset is None:
        return False
    if dataset in LOCAL or ((places.data or Path()) / dataset).exists():
        return True
    from huggingface_hub.constants import HF_HUB_CACHE

    return is_prepared(dataset) or (Path(HF_HUB_CACHE) / f"datasets--{dataset.replace('/', '--')}").is_dir()
