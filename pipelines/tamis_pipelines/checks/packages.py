"""Checks that the packages that a run needs are installed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from tamis.core.errors import install
from tamis.core.stages import all_stages
from tamis.core.storage import extra_of
from tamis.llm.backends import BACKENDS
from tamis.scoring.settings import ScoringSettings
from tamis_pipelines.checks.check import Check
from tamis_pipelines.checks.fields import referring
from tamis_pipelines.checks.services import asked_of
from tamis_pipelines.settings import RunSettings


def packages(settings: RunSettings) -> Iterator[Check]:
    """List the extras that are missing."""
    needed = {"kfp": "kubeflow"}
    for command in _stages_of(settings):
        needed |= all_stages()[command].packages
    for name in settings.scores:
        section = getattr(settings, name)
        needed |= section.measure.PACKAGES if isinstance(section, ScoringSettings) else {}
    for asked in asked_of(settings).values():
        needed |= getattr(asked, "PACKAGES", {})
    if settings.judging is not None:
        needed |= BACKENDS[settings.judging.answers.engine].PACKAGES
    if any(referring(settings, "dataset")) or any(source.recipe for source in settings.pool.sources):
        needed["datasets"] = "hub"
    if (training := settings.finetuning) is not None:
        needed |= {"bitsandbytes": "qlora"} if training.method == "qlora" else {}
        needed |= {"deepspeed": "deepspeed"} if training.deepspeed else {}
    missing = {extra for package, extra in needed.items() if find_spec(package) is None}
    for extra, storage_packages in filter(None, (extra_of(value) for _, value in referring(settings, "data", "store"))):
        missing |= {extra for package in storage_packages if find_spec(package) is None}
    seen = f"missing extras: {', '.join(sorted(missing))}" if missing else "all installed"
    yield Check.of("packages", not missing, seen, install(",".join(sorted(missing))))


def _stages_of(settings: RunSettings) -> Iterator[str]:
    """Yield the commands of the stages in a run of `settings`."""
    yield from ("pool", "rate", "embed", "neighbors", "curate", "select", "report")
    if settings.describe is not None:
        yield "describe"
    if settings.near_copies is not None:
        yield "near-copies"
    if "influence" in settings.scores:
        yield "influence"
    if settings.finetuning is not None:
        yield from ("finetune", "evaluate")
    if settings.judging is not None:
        yield "judge"
