"""Packages that a run needs."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from tamis.core.errors import install
from tamis.core.storage import extra_of
from tamis_pipelines.checks.check import Check
from tamis_pipelines.checks.fields import referring
from tamis_pipelines.checks.services import services_of
from tamis_pipelines.settings import RunSettings


def packages(settings: RunSettings) -> Iterator[Check]:
    """The extras that are missing."""
    needed = {"sentence_transformers": "embedding", "kfp": "kubeflow"}
    kinds: set[str] = {rater.backend.kind for rater in settings.raters}
    if (judging := settings.judging) is not None:
        kinds |= {judging.judge.backend.kind, judging.answers.engine}
    needed |= {kind: extra for kind, extra in (("transformers", "rating"), ("vllm", "vllm")) if kind in kinds}
    if any(referring(settings, "dataset")) or any(source.recipe for source in settings.pool.sources):
        needed["datasets"] = "hub"
    if any(services_of(settings)):
        needed["openai"] = "openai"
    if (training := settings.finetuning) is not None:
        needed |= {"trl": "training", "peft": "training", "lm_eval": "evaluation"}
        needed |= {"bitsandbytes": "qlora"} if training.method == "qlora" else {}
        needed |= {"deepspeed": "deepspeed"} if training.deepspeed else {}
    missing = {extra for package, extra in needed.items() if find_spec(package) is None}
    for extra, storage_packages in filter(None, (extra_of(value) for _, value in referring(settings, "data", "store"))):
        missing |= {extra for package in storage_packages if find_spec(package) is None}
    seen = f"missing extras: {', '.join(sorted(missing))}" if missing else "all there"
    yield Check.of("packages", not missing, seen, install(",".join(sorted(missing))))
