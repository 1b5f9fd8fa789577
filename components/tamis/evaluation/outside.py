"""Local data of a suite's own tasks that are outside the suite's folders, so that a change in them is noticed."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tamis.core.settings import hash_of
from tamis.core.storage import fingerprint, is_remote
from tamis.evaluation.suite import Places

_REFERRING = ("dataset_path", "data_files", "data_dir", "include")


def fingerprints(places: Places) -> dict[str, str]:
    """A fingerprint of what the suite's own tasks refer to outside the suite's folders, by the text of the reference.

    `dataset_path`, `data_files`, `data_dir` and `include` are looked at. A relative path is looked for where lm-eval
    does: `include` beside the task's file, the others in the folder of the data. Names on the Hub, patterns without a
    file and addresses are left out.

    Raises:
        StorageError: when a file cannot be read.
    """
    if places.tasks is None or places.data is None:
        return {}
    inside = [_plain(places.tasks), _plain(places.data)]
    found: dict[str, dict[str, str]] = {}
    for file in sorted(places.tasks.rglob("*.yaml")):
        for name, text in _references(_read(file)):
            folder = file.parent if name == "include" else places.data
            for path in map(_plain, glob.glob(str(folder / text), recursive=True)):
                if not any(path.is_relative_to(one) for one in inside):
                    found.setdefault(f"{name} {text}", {})[os.path.relpath(path, folder)] = fingerprint(str(path))
    return {reference: hash_of(files) for reference, files in found.items()}


def _plain(path: str | Path) -> Path:
    """The absolute path without "..". Links are kept, because the folders' fingerprints follow them."""
    return Path(os.path.abspath(path))


class _Loader(yaml.SafeLoader):
    """Reads a task's YAML, with None for lm-eval's own tags, such as !function."""


_Loader.add_multi_constructor("!", lambda *_: None)


def _read(file: Path) -> Any:
    try:
        return yaml.load(file.read_bytes(), _Loader)
    except (OSError, ValueError, yaml.YAMLError):  # lm-eval reports what is wrong with a task that is used
        return None


def _references(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The texts in `value` that refer to data, each with the name of the setting."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _references(inner, key if key in _REFERRING else name)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner, name)
    elif isinstance(value, str) and name and not is_remote(value):
        yield name, value
