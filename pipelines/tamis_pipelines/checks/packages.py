"""Packages that a run needs."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from tamis.core.errors import install
from tamis.core.storage import is_remote
from tamis_pipelines.checks.check import Check
from tamis_pipelines.checks.fields import fields_of, last
from tamis_pipelines.checks.services import services_of
from tamis_pipelines.settings import RunSettings


def packages(settings: RunSettings) -> Iterator[Check]:
    """The extras that are missing."""
    needed = {"sentence_transformers": "embedding", "kfp": "kubeflow"}
    kinds = {
        value for where, value in fields_of(settings) if where.endswith((".backend.kind", "judging.answers.engine"))
    }
    needed |= {kind: extra for kind, extra in (("transformers", "rating"), ("vllm", "vllm")) if kind in kinds}
    if any(last(where) in ("dataset", "recipe") and value for where, value in fields_of(settings)):
        needed["datasets"] = "hub"
    if any(services_of(settings)):
        needed["openai"] = "openai"
    if (training := settings.finetuning) is not None:
        needed |= {"trl": "training", "peft": "training", "lm_eval": "evaluation"}
        needed |= {"bitsandbytes": "qlora"} if training.method == "qlora" else {}
        needed |= {"deepspeed": "deepspeed"} if training.deepspeed else {}
    if any(is_remote(str(value)) for _, value in fields_of(settings)):
        needed |= {"cloudpathlib": "s3"}
    missing = sorted({extra for package, extra in needed.items() if find_spec(package) is None})
    seen = f"missing extras: {', '.join(missing)}" if missing else "all there"
    yield Check.of("packages", not missing, seen, install(",".join(missing)))
