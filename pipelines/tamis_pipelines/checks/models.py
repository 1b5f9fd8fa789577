"""Models that a run loads, and the suite that they are evaluated on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tamis.core.errors import TamisError
from tamis.core.models import weight_bytes
from tamis.evaluation.suite import open_suite
from tamis_pipelines.checks.check import Check
from tamis_pipelines.checks.fields import fields_of, last
from tamis_pipelines.checks.services import services_of
from tamis_pipelines.settings import RunSettings

GIB = 1 << 30
DEMO, MAKE_DEMO = "build/demo/", "make demo, which also makes what the other examples share with it"


def models_of(settings: RunSettings) -> list[tuple[str, str]]:
    """Folders and hub names of models that run on this machine, each with its dotted place."""
    services = dict(services_of(settings))
    return [
        (where, str(value))
        for where, value in fields_of(settings)
        if value is not None and last(where).endswith("model") and where not in services
    ]


def models(settings: RunSettings) -> Iterator[Check]:
    """Every model, and the suite."""
    yield from (_model(where, model) for where, model in models_of(settings))
    yield from _suite(settings)


def _model(where: str, model: str) -> Check:
    folder = Path(model)
    if folder.is_dir():
        size = weight_bytes(folder)
        whole = size > 0 and (folder / "config.json").is_file()
        seen = f"{model}, {size / GIB:.2f} GiB of weights" if whole else f"{model} has no config.json or no weights"
        return Check.of(where, whole, seen, "give a folder in Hugging Face layout: config.json and *.safetensors")
    if model.startswith((".", "/")) or model.count("/") > 1:
        action = MAKE_DEMO if model.startswith(DEMO) else f"correct {where}, or make the model first"
        return Check.of(where, False, f"no folder {model}", action)
    from huggingface_hub import get_token, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(model, "config.json"), str):
        return Check.of(where, True, f"{model}, in this machine's hub cache")
    offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
    seen = f"{model} is not in this machine's hub cache" + (" and the hub is off (HF_HUB_OFFLINE)" if offline else "")
    token = "" if get_token() else "; no HF_TOKEN is set, which gated models need"
    return Check.of(
        where, not offline, f"{seen}; it will be downloaded{token}", f"hf download {model}, or give a folder"
    )


def _suite(settings: RunSettings) -> Iterator[Check]:
    if settings.evaluation is None:
        return
    try:
        suite, _ = open_suite(settings.evaluation)
        yield Check.of("evaluation.suite", True, f"{settings.evaluation.suite}, {len(suite.tasks)} tasks")
    except TamisError as error:
        yield Check.of(
            "evaluation.suite", False, error.problem.removeprefix("evaluation.suite: "), f"choose {error.allowed}"
        )
