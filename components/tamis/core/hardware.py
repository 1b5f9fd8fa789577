"""A description of this machine's processors and GPUs, since times measured on one machine do not hold for another."""

from __future__ import annotations

import os
import platform
import re
from functools import lru_cache
from pathlib import Path

_PROCESSORS, _GPUS = Path("/proc/cpuinfo"), Path("/proc/driver/nvidia/gpus")


@lru_cache(maxsize=1)
def hardware() -> str:
    """The processors that this process may use and the GPUs it can see, as in "16 x AMD EPYC, 1 x NVIDIA H200".

    It is read from system files: no GPU library is loaded. It does not identify the individual machine.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = [f"{cores} x {_named(_PROCESSORS, 'model name') or platform.machine() or 'processor'}"]
    gpus = [] if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") else sorted(_GPUS.glob("*/information"))
    models = [_named(file, "Model") or "GPU" for file in gpus]
    parts += [f"{models.count(model)} x {model}" for model in sorted(set(models))]
    return ", ".join(parts)


def _named(file: Path, field: str) -> str | None:
    """The value of the first line "field : value"."""
    try:
        found = re.search(rf"^{field}\s*:\s*(.+?)\s*$", file.read_text(errors="replace"), flags=re.MULTILINE)
    except OSError:
        return None
    return found[1] if found else None
