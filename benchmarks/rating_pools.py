"""Pools for `rating_engines.py`: short real texts, or made-up ones."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from rating import write_pool  # noqa: E402

from tamis.core.artifacts import Artifact  # noqa: E402
from tamis.core.samples import as_text  # noqa: E402
from tamis.demo.docstrings import MODULES  # noqa: E402
from tamis.llm.backend import Request  # noqa: E402
from tests.artifacts import conversation, make_pool  # noqa: E402

MORE_MODULES = (
    "ast", "asyncio", "builtins", "cmd", "concurrent.futures", "ctypes", "dataclasses", "doctest", "email.header",
    "email.message", "ftplib", "http.client", "http.cookiejar", "http.server", "imaplib", "locale",
    "logging.handlers", "mailbox", "mmap", "multiprocessing", "optparse", "os", "pdb", "pickle", "platform",
    "plistlib", "poplib", "pstats", "sched", "selectors", "signal", "smtplib", "socket", "socketserver", "sqlite3",
    "ssl", "symtable", "tarfile", "tokenize", "typing", "unittest", "unittest.mock", "urllib.request", "wave",
    "webbrowser", "xml.dom.minidom", "xml.etree.ElementTree", "xmlrpc.client", "zoneinfo",
)  # fmt: skip
WARM_UP = 48  # samples that both sides ask beforehand


def texts() -> list[tuple[str, str]]:
    """Names of the standard library's objects with the first lines of their documentation; no lines twice."""
    found: dict[str, str] = {}
    for name in (*MODULES, *MORE_MODULES):
        with contextlib.suppress(ImportError):
            module = importlib.import_module(name)
            things = [(f"{name}.{key}", thing) for key, thing in vars(module).items() if key[0] != "_"]
            classes = [(key, thing) for key, thing in things if inspect.isclass(thing)]
            things += [(f"{key}.{k}", t) for key, thing in classes for k, t in vars(thing).items() if k[0] != "_"]
            for key, thing in things:
                if isinstance(thing.__doc__, str) and (inspect.isroutine(thing) or inspect.isclass(thing)):
                    lines = " ".join(inspect.cleandoc(thing.__doc__).partition("\n\n")[0].split())
                    if 30 <= len(lines) <= 160:
                        found.setdefault(lines, key)
    return [(key, lines) for lines, key in found.items()]


def pools(folder: Path, count: int, pieces: int) -> tuple[Path, list[Path]]:
    """A pool to warm up with, and `count` other samples in pools of like size."""
    samples = [conversation(f"What is {key} in Python?", lines) for key, lines in texts()[: WARM_UP + count]]
    if len(samples) < WARM_UP + count:
        raise SystemExit(f"this Python documents {len(samples) - WARM_UP} objects; ask for no more samples")
    rest, size = samples[WARM_UP:], -(-count // pieces)
    cut = [rest[start : start + size] for start in range(0, count, size)]
    return (
        make_pool(folder / "warm-up", samples[:WARM_UP]),
        [make_pool(folder / f"pool{number}", piece) for number, piece in enumerate(cut)],
    )


def made_up(folder: Path, count: int, pieces: int) -> tuple[Path, list[Path]]:
    """As `pools`, of any number of samples that say nothing."""
    found = [folder / f"pool{number}" for number in range(pieces)]
    write_pool(folder / "warm-up", 200)
    for pool in found:
        write_pool(pool, count // pieces)
    return folder / "warm-up", found


def requests_of(pool: Path) -> list[Request]:
    rows = Artifact.open(pool, "pool").table(["id", "messages"]).to_pylist()
    return [Request(row["id"], as_text(row["messages"])) for row in rows]
