"""Checks before a run: packages, data, models, storage, memory, disk. Nothing is downloaded and nothing is spent."""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from pydantic import BaseModel

from tamis.core.errors import StorageError, TamisError, install
from tamis.core.llm.settings import ServiceSettings
from tamis.core.machine import store_of_run
from tamis.core.storage import exists, is_remote, locate, looked_for, write_bytes
from tamis.evaluation.suite import open_suite
from tamis.pool.checking import look_into
from tamis.pool.settings import PoolSettings, Source
from tamis.pool.sources import count_rows, files_at
from tamis.rating.importing import count_ratings
from tamis.rating.settings import ImportSettings, RatingSettings
from tamis_pipelines.pods import ScoreName
from tamis_pipelines.settings import RunSettings
from tamis_pipelines.trainable import is_laid_out, looked_at

_GIB = 1 << 30
# Training an adapter and merging it hold up to about four times the weights at once; loading alone, little beside them.
_MEMORY_OF_TRAINING, _MEMORY_OF_LOADING = 4, 1.2
_TRAINED = ("finetuning.", "experiment.", "influence.")
_MEMORY_BESIDE_MODELS = 2 * _GIB
_DISK_BESIDE_MODELS = 1 * _GIB
_DEMO, _MAKE_DEMO = "build/demo/", "make demo, which also makes what the other examples share with it"
_LARGE = 1 << 28  # bytes of files that are not read beforehand


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


def examine(settings: RunSettings, *, quick: bool = False) -> list[Check]:
    """Look at everything that a run of `settings` needs, in the order in which a user would mend it.

    With `quick`, what takes the time to load PyTorch is not looked at where an earlier run has made all models.
    """
    fields = [field for field in fields_of(settings) if field[1] is not None]
    checks = list(_packages(settings))
    listed = (".exclude.", ".grades.path.", ".also.")  # several files
    files = [
        (where, str(value)) for where, value in fields if _last(where) == "path" or any(o in where for o in listed)
    ]
    checks += [_data(where, path) for where, path in files]
    checks += [check for source in settings.pool.sources if (check := _first_rows(source, settings.pool)) is not None]
    checks += [check for rater in settings.raters if (check := _ratings(rater)) is not None]
    checks += _sizes(settings)
    services = dict(_services(settings))
    models = [
        (where, str(value)) for where, value in fields if _last(where).endswith("model") and where not in services
    ]
    checks += [_model(where, model) for where, model in models]
    checks += _suite(settings)
    if not (quick and is_laid_out(settings)):
        checks += [
            _refused(where, found) if isinstance(found, TamisError) else Check(where, True, found)
            for where, found in looked_at(settings)
        ]
    checks += [_key(where, service) for where, service in services.items()]
    places = [("work_dir", str(settings.work_dir))]
    places += [(where, str(value)) for where, value in fields if _last(where) == "store"]
    checks += [_writable(where, place) for where, place in places]
    checks += _store(settings)
    elsewhere = sorted({model for _, model in models if not Path(model).is_dir()})
    return [*checks, _gpus(), _memory(models, elsewhere), _disk(settings, elsewhere)]


def fields_of(settings: RunSettings) -> Iterator[tuple[str, object]]:
    """Every plain value that a run of `settings` uses, with its dotted place."""
    unused = {*get_args(ScoreName)} - {*settings.scores}
    overruled = {"evaluation.model"}  # the base models that are evaluated are those that are trained
    if settings.experiment is not None and settings.experiment.models:
        overruled.add("finetuning.model")
    for section in type(settings).model_fields:
        if section not in unused:
            values = _plain_values(getattr(settings, section), section)
            yield from (field for field in values if field[0] not in overruled)


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


def _refused(where: str, error: TamisError) -> Check:
    return Check(where, False, error.problem, error.action or f"allowed: {error.allowed}")


def _last(where: str) -> str:
    return where.rsplit(".", 1)[-1]


def _packages(settings: RunSettings) -> Iterator[Check]:
    needed = {"sentence_transformers": "embedding", "kfp": "kubeflow"}
    kinds = {
        value for where, value in fields_of(settings) if where.endswith((".backend.kind", "judging.answers.engine"))
    }
    needed |= {kind: extra for kind, extra in (("transformers", "rating"), ("vllm", "vllm")) if kind in kinds}
    if any(_last(where) in ("dataset", "recipe") and value for where, value in fields_of(settings)):
        needed["datasets"] = "hub"
    if any(_services(settings)):
        needed["openai"] = "openai"
    if (training := settings.finetuning) is not None:
        needed |= {"trl": "training", "peft": "training", "lm_eval": "evaluation"}
        needed |= {"bitsandbytes": "qlora"} if training.method == "qlora" else {}
        needed |= {"deepspeed": "deepspeed"} if training.deepspeed else {}
    if any(is_remote(str(value)) for _, value in fields_of(settings)):
        needed |= {"cloudpathlib": "s3"}
    missing = sorted({extra for package, extra in needed.items() if find_spec(package) is None})
    seen = f"missing extras: {', '.join(missing)}" if missing else "all there"
    yield Check("packages", not missing, seen, install(",".join(missing)))


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
        return _refused(where, error)
    return Check(where, True, seen if service.api_key_env is None else f"{seen}, key in {service.api_key_env}")


def _data(where: str, path: str) -> Check:
    action = f"correct {where}, or put the data there"
    try:
        found = exists(locate(path)) or (not is_remote(path) and bool(glob.glob(path)))
    except TamisError as error:
        return _refused(where, error)
    if not found and re.fullmatch(r"[\w.-]+/[\w.-]+", path):
        hub = "`dataset` takes its name" if where.startswith("pool.") else "it is no file with ratings"
        action = f"give a file, local or in object storage; if this is a data set of the hub, {hub}"
    if not found and path.startswith(_DEMO):
        action = _MAKE_DEMO
    return Check(where, found, path if found else f"nothing at {looked_for(path)}", action)


def _first_rows(source: Source, settings: PoolSettings) -> Check | None:
    """Whether the first rows of a local source become samples."""
    where = f"pool.sources.{source.name}"
    try:
        found = look_into(source, settings)
        if found is not None:
            found.check_shares(source.name, settings)
    except StorageError:
        return None  # that nothing is there is said elsewhere
    except TamisError as error:
        return _refused(where, error)
    return None if found is None else Check(where, True, str(found))


def _ratings(rater: RatingSettings) -> Check | None:
    """Whether the file of ratings to import has the columns that the settings name; a large one is left for the run."""
    backend = rater.backend
    if not isinstance(backend, ImportSettings) or is_remote(backend.path) or not Path(backend.path).is_file():
        return None
    if Path(backend.path).stat().st_size > _LARGE:
        return None
    where = f"raters.{rater.name}.backend"
    try:
        return Check(where, True, f"{count_ratings(backend):,} rows with the columns that are asked for")
    except TamisError as error:
        return _refused(where, error)


def _sizes(settings: RunSettings) -> Iterator[Check]:
    """Subsets that are larger than the pool can be, where all of it comes from local files that are not large."""
    paths = [source.path for source in settings.pool.sources if source.path and not is_remote(source.path)]
    try:
        size = sum(Path(str(file)).stat().st_size for path in paths for _, file in files_at(path))
        if len(paths) < len(settings.pool.sources) or size > _LARGE:
            return
        samples = sum(count_rows(path, settings.pool) for path in paths)
    except TamisError:
        return  # that the data are missing is said elsewhere
    for cell in settings.cells:
        if cell.subset.size is not None and cell.subset.size > samples:
            seen = f"{cell.subset.size:,} samples are asked of {samples:,} at most"
            yield Check(f"subset {cell.name}", False, seen, "choose a smaller size, or add sources")


def _suite(settings: RunSettings) -> Iterator[Check]:
    if settings.evaluation is None:
        return
    try:
        suite, _ = open_suite(settings.evaluation)
        yield Check("evaluation.suite", True, f"{settings.evaluation.suite}, {len(suite.tasks)} tasks")
    except TamisError as error:
        yield Check(
            "evaluation.suite", False, error.problem.removeprefix("evaluation.suite: "), f"choose {error.allowed}"
        )


def _gpus() -> Check:
    """What the driver's own command lists: nothing that takes seconds is loaded."""
    program = shutil.which("nvidia-smi")
    listed = subprocess.run([program, "-L"], capture_output=True, text=True).stdout.splitlines() if program else []
    names = [line.split("(")[0].strip() for line in listed if line.startswith("GPU ")]
    return Check("GPUs", True, ", ".join(names) or "none seen: models run on the CPU")


def _model(where: str, model: str) -> Check:
    folder = Path(model)
    if folder.is_dir():
        size = _weight_bytes(folder)
        whole = size > 0 and (folder / "config.json").is_file()
        seen = f"{model}, {size / _GIB:.2f} GiB of weights" if whole else f"{model} has no config.json or no weights"
        return Check(where, whole, seen, "give a folder in Hugging Face layout: config.json and *.safetensors")
    if model.startswith((".", "/")) or model.count("/") > 1:
        action = _MAKE_DEMO if model.startswith(_DEMO) else f"correct {where}, or make the model first"
        return Check(where, False, f"no folder {model}", action)
    from huggingface_hub import get_token, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(model, "config.json"), str):
        return Check(where, True, f"{model}, in this machine's hub cache")
    offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
    seen = f"{model} is not in this machine's hub cache" + (" and the hub is off (HF_HUB_OFFLINE)" if offline else "")
    token = "" if get_token() else "; no HF_TOKEN is set, which gated models need"
    return Check(where, not offline, f"{seen}; it will be downloaded{token}", f"hf download {model}, or give a folder")


def _weight_bytes(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    # Where both kinds lie, they are the same weights twice.
    files = [*folder.glob("*.safetensors")] or [*folder.glob("*.bin")]
    return sum(file.stat().st_size for file in files)


def _store(settings: RunSettings) -> Iterator[Check]:
    """The place of answers for which the settings name none."""
    stores = [rater.store for rater in settings.raters if not isinstance(rater.backend, ImportSettings)]
    stores += [settings.judging.store] if settings.judging is not None else []
    if None in stores:
        try:
            home = settings.work_dir / ".tamis"
            yield _writable("store", store_of_run(home) or str(home))
        except TamisError as error:
            yield _refused("store", error)


def _writable(where: str, place: str) -> Check:
    parents = [] if is_remote(place) else [Path(place), *Path(place).parents]
    made = [parent for parent in parents if not parent.exists()]
    try:
        folder = locate(place)
        write_bytes(folder / ".tamis-probe", b"")
        (folder / ".tamis-probe").unlink()
        for parent in made:  # a check leaves nothing behind
            parent.rmdir()
    except TamisError as error:
        return _refused(where, error)
    return Check(where, True, f"{place} can be written")


def _not_counted(models: list[str]) -> str:
    return f"; not counted, for they are not here: {', '.join(models)}" if models else ""


def _memory(models: list[tuple[str, str]], elsewhere: list[str]) -> Check:
    import psutil

    free = psutil.virtual_memory().available
    needed = max((_held(where, model) for where, model in models), default=0) + _MEMORY_BESIDE_MODELS
    seen = f"{free / _GIB:.1f} GiB free, about {needed / _GIB:.1f} GiB needed{_not_counted(elsewhere)}"
    return Check("memory", free >= needed, seen, "choose a smaller model, or a machine with more memory")


def _held(where: str, model: str) -> float:
    """Bytes of memory that the work with a model takes."""
    factor = _MEMORY_OF_TRAINING if where.startswith(_TRAINED) else _MEMORY_OF_LOADING
    return factor * _weight_bytes(Path(model))


def _disk(settings: RunSettings, elsewhere: list[str]) -> Check:
    trained = [_weight_bytes(Path(cell.finetuning.model)) for cell in settings.cells if cell.finetuning]
    needed = sum(trained) + max(trained, default=0) + _DISK_BESIDE_MODELS  # one more, which is being made
    place = settings.work_dir.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    seen = f"{free / _GIB:.1f} GiB free at {place}, about {needed / _GIB:.1f} GiB needed{_not_counted(elsewhere)}"
    return Check("disk", free >= needed, seen, "free space there, or choose another work_dir")
