"""Pairs of questions and answers from Python's standard library: what an object is for, and its documentation.

The choice depends only on the seed and the version of Python.
"""

from __future__ import annotations

import importlib
import inspect
import random
import sys
import types
from collections.abc import Iterator
from typing import Any

from tamis.core.errors import InputError

MODULES = (
    "argparse", "base64", "bisect", "calendar", "codecs", "collections", "configparser", "contextlib", "copy", "csv",
    "datetime", "decimal", "difflib", "enum", "fnmatch", "fractions", "functools", "glob", "gzip", "hashlib",
    "heapq", "hmac", "html", "inspect", "io", "ipaddress", "itertools", "json", "linecache", "logging", "math",
    "mimetypes", "operator", "os.path", "pathlib", "pprint", "queue", "random", "re", "secrets", "shlex", "shutil",
    "statistics", "string", "struct", "subprocess", "tempfile", "textwrap", "threading", "time", "timeit", "traceback",
    "types", "unicodedata", "urllib.parse", "uuid", "warnings", "weakref", "zipfile", "zlib",
)  # fmt: skip
SHORTEST, LONGEST = 80, 1200  # characters of a docstring
QUESTIONS = {
    "function": (
        "What does the function `{name}` of Python's standard library do?",
        "How is `{name}` in Python used?",
        "Explain the Python function `{name}`.",
    ),
    "class": (
        "What is the class `{name}` of Python's standard library for?",
        "Describe Python's `{name}` class.",
        "When would I use `{name}` in Python?",
    ),
}


def documented(module: types.ModuleType) -> Iterator[tuple[str, str, str]]:
    """The public functions and classes defined in `module`: name, "function" or "class", documentation."""
    for name in sorted(getattr(module, "__all__", vars(module))):
        thing = vars(module).get(name)
        own = hasattr(module, "__all__") or getattr(thing, "__module__", None) == module.__name__
        if name.startswith("_") or not own or not (inspect.isclass(thing) or inspect.isroutine(thing)):
            continue
        if isinstance(thing.__doc__, str):
            yield name, "class" if inspect.isclass(thing) else "function", inspect.cleandoc(thing.__doc__)


def candidates() -> list[tuple[str, str, str]]:
    """Every usable object: its full name, its kind and its documentation; sorted by name, without repeated texts."""
    texts: dict[str, tuple[str, str, str]] = {}
    for module in MODULES:
        for name, kind, text in documented(importlib.import_module(module)):
            if SHORTEST <= len(text) <= LONGEST:
                texts.setdefault(text, (f"{module}.{name}", kind, text))
    return sorted(texts.values())


def require() -> None:
    """Check that this Python has docstrings.

    Raises:
        InputError: when it was started without them.
    """
    if sys.flags.optimize >= 2:
        raise InputError("this Python runs without docstrings", action="start it without -OO and PYTHONOPTIMIZE")


def pairs(count: int = 60, seed: int = 42) -> list[dict[str, Any]]:
    """`count` samples, sorted by name. They have no grades, because nobody graded these texts."""
    generator = random.Random(seed)
    chosen = sorted(generator.sample(candidates(), count))
    return [
        {
            "key": name,
            "topic": "python library",
            "grade": None,
            "messages": [
                {"role": "user", "content": generator.choice(QUESTIONS[kind]).format(name=name)},
                {"role": "assistant", "content": text},
            ],
        }
        for name, kind, text in chosen
    ]
