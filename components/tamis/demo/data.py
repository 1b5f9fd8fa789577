"""The demo's data and settings, which are written to a folder of the user."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tamis.core.errors import StorageError
from tamis.core.storage import is_remote, write_bytes
from tamis.core.storage.errors import explained
from tamis.demo import FOLDER, docstrings

SETTINGS = "settings.yaml"
_HERE = Path(__file__).parent
_GRADES_FOR_CURATION = 100
_OWN_LINES = 3  # first lines of a file by which the demo recognises its own, also those of earlier releases


def folder_at(place: str) -> Path:
    """The folder for the demo.

    Raises:
        StorageError: when it is in object storage, or its name cannot be written in the settings.
    """
    if is_remote(place):
        problem = f"the demo cannot be written to {place}"
        raise StorageError(problem, allowed="a folder on this machine", permanent=True)
    if not place.isprintable():
        problem = f"the demo cannot be written to {place!a}"
        raise StorageError(problem, allowed="a name with printable characters", permanent=True)
    return Path(place)


def prepare_data(folder: Path) -> Iterator[Path]:
    """Write the pool's two files, the settings and the suite to `folder`; each appears complete or not at all.

    Existing pool files are kept. Settings and suite are written again if they differ from this package's. If a file
    with such a name is not one of the demo, nothing is written.

    Yields:
        each file that was written.

    Raises:
        InputError: when this Python has no docstrings.
        StorageError: when a file with such a name is not one of the demo, or the folder cannot be written.
    """
    changed = {name: text for name, text in _settings(folder).items() if _is_to_write(folder / name, text)}
    for name, make in (("written.jsonl", written), ("docstrings.jsonl", documentation)):
        if not (folder / name).is_file():
            yield _write(folder / name, make())
    for name, text in changed.items():
        yield _write(folder / name, text)


def _is_to_write(file: Path, text: str) -> bool:
    """Whether `file` does not exist, or is a file of the demo whose content differs from `text`.

    Raises:
        StorageError: when it is another file, which must not be overwritten.
    """
    with explained(f"reading {file}"):
        if not os.path.lexists(file):
            return True
        there = file.read_bytes() if file.is_file() else b""
    wanted = text.encode()
    if there.splitlines()[:_OWN_LINES] != wanted.splitlines()[:_OWN_LINES]:
        raise StorageError(
            f"{file} exists and was not written by `tamis demo`; nothing was written",
            action="choose another folder for the demo",
            permanent=True,
        )
    return there != wanted


def written() -> str:
    """The samples in `pool/`, one JSON object per line, in the order of the files' names.

    Each grade is also in a second field: `checked` for a random part, which curation uses, `held_out` for the others.
    """
    files = sorted((_HERE / "pool").glob("written_*.jsonl"))
    samples = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines() if line]
    drawn = sorted(samples, key=lambda sample: hashlib.sha256(sample["key"].encode()).digest())[:_GRADES_FOR_CURATION]
    checked = {sample["key"] for sample in drawn}
    for sample in samples:
        sample["checked" if sample["key"] in checked else "held_out"] = sample["grade"]
    return _lines(samples)


def documentation() -> str:
    """Questions about Python's standard library with docstrings as answers, one JSON object per line.

    A new process reads them, because logging has replaced library objects in this one by others without docstrings.

    Raises:
        InputError: when this Python has no docstrings.
    """
    docstrings.require()
    code = "import json; from tamis.demo import docstrings; print(json.dumps(docstrings.pairs()))"
    read = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, env=_with_this_path())
    return _lines(json.loads(read.stdout))


def _with_this_path() -> dict[str, str]:
    """The environment for a process that finds modules in the same places as this one."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _settings(folder: Path) -> dict[str, str]:
    """The texts of the settings for data and models in `folder`, and of the suite and its tasks, by relative path."""
    template = (_HERE / SETTINGS).read_text(encoding="utf-8")
    here = json.dumps(f"{folder.as_posix()}/", ensure_ascii=False)[:-1]  # quoted as YAML, which takes JSON's strings
    suite = [_HERE / "suite.yaml", *sorted((_HERE / "tasks").iterdir())]
    texts = {file.relative_to(_HERE).as_posix(): file.read_text(encoding="utf-8") for file in suite}
    return {SETTINGS: template.replace(f'"{FOLDER}/', here)} | texts


def _lines(samples: list[dict[str, object]]) -> str:
    return "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)


def _write(file: Path, text: str) -> Path:
    write_bytes(file, text.encode())
    return file
