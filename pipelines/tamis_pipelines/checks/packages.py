"""Packages that a run needs."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from tamis.core.errors import install
from tamis.core.llm.backends import BACKENDS
from tamis.core.storage import is_remote
from tamis_pipelines.checks.check import Check
from tamis_pipelines.checks.fields import fields_of, last
from tamis_pipelines.checks.services import asked_of
from tamis_pipelines.settings import RunSettings


def packages(settings: RunSettings) -> Iterator[Check]:
    """The extras that are missing."""
    needed = {"sentence_transformers": "embedding", "kfp": "kubeflow"}
    for asked in asked_of(settings).values():
        needed |= getattr(asked, "PACKAGES", {})
    if settings.judging is not None:
        needed |= BACKENDS[settings.judging.answers.engine].PACKAGES
    if any(last(where) in ("dataset", "recipe") and value for where, value in fields_of(settings)):
        needed["datasets"] = "hub"
    if (training := settings.finetuning) is not None:
        needed |= {"trl": "training", "peft": "training", "lm_eval": "evaluation"}
        needed |= {"bitsandbytes": "qlora"} if training.method == "qlora" else {}
        needed |= {"deepspeed": "deepspeed"} if training.deepspeed else {}
    missing = {extra for package, extra in needed.items() if find_spec(package) is None}
    for extra, storage_packages in filter(None, (extra_of(value) for _, value in referring(settings, "data", "store"))):
        missing |= {extra for package in storage_packages if find_spec(package) is None}
    seen = f"missing extras: {', '.join(sorted(missing))}" if missing else "all there"
    yield Check.of("packages", not missing, seen, install(",".join(sorted(missing))))
