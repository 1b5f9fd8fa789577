"""Checks of the machine: folders to write to, GPUs, memory, disk."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tamis.core.errors import TamisError
from tamis.core.models import weight_bytes
from tamis.core.references import Setting
from tamis.core.storage import is_remote, locate, remove, write_bytes
from tamis.llm.machine import store_of_run
from tamis.rating.settings import AskedRater
from tamis_pipelines.checks.check import Check
from tamis_pipelines.checks.fields import fields_of, referring
from tamis_pipelines.checks.models import GIB
from tamis_pipelines.settings import RunSettings

# Training and merging an adapter needs up to about four times the memory of the weights; loading needs little more
# than the weights.
_MEMORY_OF_TRAINING, _MEMORY_OF_LOADING = 4, 1.2
_MEMORY_BESIDE_MODELS = 2 * GIB
_DISK_BESIDE_MODELS = 1 * GIB


def machine(settings: RunSettings) -> Iterator[Check]:
    """Check that results can be written, and that there is enough memory and disk."""
    yield from (_writable(where, place) for where, place in referring(settings, "work", "store"))
    yield from _store(settings)
    models = [field for field in fields_of(settings) if field.reference and field.reference.to == "model"]
    elsewhere = sorted({str(field.value) for field in models if not Path(str(field.value)).is_dir()})
    yield from (_gpus(), _memory(models, elsewhere), _disk(settings, elsewhere))


def _store(settings: RunSettings) -> Iterator[Check]:
    """Check the default store, if a rater or judging has none in its settings."""
    stores = [rater.store for rater in settings.raters if isinstance(rater, AskedRater)]
    stores += [settings.judging.store] if settings.judging is not None else []
    if None in stores:
        try:
            home = settings.work_dir / ".tamis"
            yield _writable("store", store_of_run(home) or str(home))
        except TamisError as error:
            yield Check.refused("store", error)


def _writable(where: str, place: str) -> Check:
    parents = [] if is_remote(place) else [Path(place), *Path(place).parents]
    made = [parent for parent in parents if not parent.exists()]
    try:
        folder = locate(place)
        write_bytes(folder / ".tamis-probe", b"")
        remove(folder / ".tamis-probe")
        for parent in made:  # leave nothing behind
            parent.rmdir()
    except TamisError as error:
        return Check.refused(where, error)
    return Check.of(where, True, f"{place} is writable")


def _gpus() -> Check:
    """List the GPUs by the driver's command, because loading PyTorch takes seconds."""
    program = shutil.which("nvidia-smi")
    listed = subprocess.run([program, "-L"], capture_output=True, text=True).stdout.splitlines() if program else []
    names = [line.split("(")[0].strip() for line in listed if line.startswith("GPU ")]
    return Check.of("GPUs", True, ", ".join(names) or "none found: models will run on the CPU")


def _not_counted(models: list[str]) -> str:
    return f", not counting models that are not on this machine yet: {', '.join(models)}" if models else ""


def _memory(models: list[Setting], elsewhere: list[str]) -> Check:
    import psutil

    free = psutil.virtual_memory().available
    needed = max(map(_held, models), default=0) + _MEMORY_BESIDE_MODELS
    seen = f"{free / GIB:.1f} GiB free, about {needed / GIB:.1f} GiB needed{_not_counted(elsewhere)}"
    return Check.of("memory", free >= needed, seen, "use a smaller model, or a machine with more memory")


def _held(model: Setting) -> float:
    """Return how many bytes of memory working with a model needs."""
    trained = model.reference is not None and model.reference.trained
    return (_MEMORY_OF_TRAINING if trained else _MEMORY_OF_LOADING) * weight_bytes(Path(str(model.value)))


def _disk(settings: RunSettings, elsewhere: list[str]) -> Check:
    trained = [weight_bytes(Path(cell.finetuning.model)) for cell in settings.cells if cell.finetuning]
    needed = sum(trained) + max(trained, default=0) + _DISK_BESIDE_MODELS  # one more, for unfinished work
    place = settings.work_dir.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    seen = f"{free / GIB:.1f} GiB free at {place}, about {needed / GIB:.1f} GiB needed{_not_counted(elsewhere)}"
    return Check.of("disk", free >= needed, seen, "free some space there, or choose another work_dir")
