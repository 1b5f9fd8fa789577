"""Checks before a run: packages, data, models, storage, memory, disk. Nothing is downloaded and nothing is spent."""

from __future__ import annotations

import glob
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from pydantic import BaseModel

from tamis.core.errors import TamisError
from tamis.core.llm.settings import ServiceSettings
from tamis.core.storage import exists, is_remote, locate, write_bytes
from tamis_pipelines.pods import ScoreName
from tamis_pipelines.settings import RunSettings

_GIB = 1 << 30
# Loading a model, training an adapter and merging it hold up to about four times the weights at once.
_MEMORY_PER_WEIGHT_BYTE = 4
_MEMORY_BESIDE_MODELS = 2 * _GIB
_DISK_BESIDE_MODELS = 1 * _GIB


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    what: str
    passed: bool
    seen: str
    action: str = ""

    def __str__(self) -> str:
        mark = "ok  " if self.passed else "FAIL"
        action = f"\n        to do: {self.action}" if self.action and not self.passed else ""
        return f"{mark}  {self.what}: {self.seen}{action}"


def examine(settings: RunSettings) -> list[Check]:
    """Look at everything that a run of `settings` needs, in the order in which a user would mend it."""
    fields = [field for field in fields_of(settings) if field[1] is not None]
    checks = list(_packages(settings))
    checks += [_data(where, str(value)) for where, value in fields if _last(where) == "path"]
    services = dict(_services(settings))
    models = [
        (where, str(value)) for where, value in fields if _last(where).endswith("model") and where not in services
    ]
    checks += [_model(where, model) for where, model in models]
    checks += [_key(where, service) for where, service in services.items()]
    places = [("work_dir", str(settings.work_dir))]
    places += [(where, str(value)) for where, value in fields if _last(where) == "store"]
    checks += [_writable(where, place) for where, place in places]
    weights = [_weight_bytes(Path(model)) for _, model in models]
    checks += [_memory(max(weights, default=0)), _disk(settings)]
    return checks


def fields_of(settings: RunSettings) -> Iterator[tuple[str, object]]:
    """Every plain value of the sections that a run of `settings` uses, with its dotted place."""
    unused = {*get_args(ScoreName)} - {*settings.scores}
    for section in type(settings).model_fields:
        if section not in unused:
            yield from _plain_values(getattr(settings, section), section)


def _plain_values(value: object, where: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _plain_values(getattr(value, name), f"{where}.{name}")
    elif isinstance(value, Mapping) and any(isinstance(inner, BaseModel) for inner in value.values()):
        for name, inner in value.items():
            yield from _plain_values(inner, f"{where}.{name}")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _plain_values(item, f"{where}.{getattr(item, 'name', number)}")
    else:
        yield where, value


def _last(where: str) -> str:
    return where.rsplit(".", 1)[-1]


def _packages(settings: RunSettings) -> Iterator[Check]:
    needed = {"sentence_transformers": "embedding", "kfp": "kubeflow"}
    kinds = {
        value for where, value in fields_of(settings) if where.endswith((".backend.kind", "judging.answers.engine"))
    }
    needed |= {kind: extra for kind, extra in (("transformers", "rating"), ("vllm", "vllm")) if kind in kinds}
    if any(
        where.startswith("judging.") and _last(where) == "dataset" and value for where, value in fields_of(settings)
    ):
        needed["datasets"] = "hub"
    if any(_services(settings)):
        needed["openai"] = "openai"
    if settings.finetuning is not None:
        needed |= {"trl": "training", "peft": "training", "lm_eval": "evaluation"}
    if any(is_remote(str(value)) for _, value in fields_of(settings)):
        needed |= {"cloudpathlib": "s3"}
    missing = sorted({extra for package, extra in needed.items() if find_spec(package) is None})
    action = f"pip install 'tamis[{','.join(missing)}]'"
    yield Check("packages", not missing, f"missing extras: {', '.join(missing)}" if missing else "all there", action)


def _services(settings: RunSettings) -> Iterator[tuple[str, ServiceSettings]]:
    """Who is a service, with the dotted place of its model's name: raters, the judge, those that it compares with."""
    found: dict[str, object] = {f"raters.{rater.name}.backend": rater.backend for rater in settings.raters}
    if (judging := settings.judging) is not None:
        found |= {"judging.judge.backend": judging.judge.backend, "judging.against": judging.against}
        found |= {f"judging.opponents.{name}": opponent for name, opponent in judging.opponents.items()}
    for where, one in found.items():
        if isinstance(one, ServiceSettings):
            yield f"{where}.model", one


def _key(where: str, service: ServiceSettings) -> Check:
    seen = f"{service.model} at {service.base_url or 'OpenAI'}"
    try:
        service.api_key()
    except TamisError as error:
        return Check(where, False, error.problem, error.action)
    return Check(where, True, seen if service.api_key_env is None else f"{seen}, key in {service.api_key_env}")


def _data(where: str, path: str) -> Check:
    action = f"correct {where}, or put the data there"
    try:
        found = exists(locate(path)) or (not is_remote(path) and bool(glob.glob(path)))
    except TamisError as error:
        return Check(where, False, error.problem, error.action)
    if not found and re.fullmatch(r"[\w.-]+/[\w.-]+", path):
        action = "give a file, local or in object storage; if this is a data set of the hub, it is no file with ratings"
    return Check(where, found, path if found else f"nothing at {path}", action)


def _model(where: str, model: str) -> Check:
    folder = Path(model)
    if folder.is_dir():
        size = _weight_bytes(folder)
        whole = size > 0 and (folder / "config.json").is_file()
        seen = f"{model}, {size / _GIB:.2f} GiB of weights" if whole else f"{model} has no config.json or no weights"
        return Check(where, whole, seen, "give a folder in Hugging Face layout: config.json and *.safetensors")
    if model.startswith((".", "/")) or model.count("/") > 1:
        return Check(where, False, f"no folder {model}", f"correct {where}, or make the model first")
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(model, "config.json"), str):
        return Check(where, True, f"{model}, in this machine's hub cache")
    offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
    seen = f"{model} is not in this machine's hub cache" + (" and the hub is off (HF_HUB_OFFLINE)" if offline else "")
    return Check(where, not offline, f"{seen}; it will be downloaded", f"hf download {model}, or give a folder")


def _weight_bytes(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    return sum(file.stat().st_size for pattern in ("*.safetensors", "*.bin") for file in folder.glob(pattern))


def _writable(where: str, place: str) -> Check:
    probe = locate(place) / ".tamis-probe"
    try:
        write_bytes(probe, b"")
        probe.unlink()
    except TamisError as error:
        return Check(where, False, error.problem, error.action)
    return Check(where, True, f"{place} can be written")


def _memory(largest_model: int) -> Check:
    import psutil

    free = psutil.virtual_memory().available
    needed = _MEMORY_PER_WEIGHT_BYTE * largest_model + _MEMORY_BESIDE_MODELS
    seen = f"{free / _GIB:.1f} GiB free, about {needed / _GIB:.1f} GiB needed"
    return Check("memory", free >= needed, seen, "choose a smaller model, or a machine with more memory")


def _disk(settings: RunSettings) -> Check:
    models = len(settings.cells) + 1 if settings.finetuning is not None else 0
    weights = _weight_bytes(Path(settings.finetuning.model)) if settings.finetuning is not None else 0
    needed = models * weights + _DISK_BESIDE_MODELS
    place = settings.work_dir.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    seen = f"{free / _GIB:.1f} GiB free at {place}, about {needed / _GIB:.1f} GiB needed"
    return Check("disk", free >= needed, seen, "free space there, or choose another work_dir")
