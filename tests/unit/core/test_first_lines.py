"""A line is out before anything that takes long: packages, models, lists of tasks."""

from __future__ import annotations

import builtins
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tamis.core import models, progress
from tamis.core.errors import MissingExtraError, ModelError
from tamis.core.progress import Progress, load_packages, loading
from tamis.embedding.encoder import Encoder
from tamis.embedding.settings import EmbeddingSettings
from tamis.evaluation import harness, suite
from tamis.evaluation.settings import EvaluationSettings
from tamis.finetuning.processes import to_launch
from tamis.finetuning.settings import FinetuningSettings
from tamis.neighbors.device import gpu

HEAVY = ("torch", "transformers", "sentence_transformers", "peft", "trl", "lm_eval", "vllm", "datasets")


class _Reached(BaseException):
    """The first heavy package is asked for: far enough."""


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@pytest.fixture
def lines() -> Iterator[list[str]]:
    handler, log = _Lines(), logging.getLogger("tamis")
    log.addHandler(handler)
    before = log.level
    log.setLevel(logging.INFO)
    yield handler.said
    log.removeHandler(handler)
    log.setLevel(before)


@pytest.fixture
def nothing_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """No heavy package is imported yet, and the first import of one raises `_Reached`."""
    for name in [name for name in sys.modules if name.partition(".")[0] in HEAVY]:
        monkeypatch.delitem(sys.modules, name)
    usual, by_name = builtins.__import__, progress.importlib.import_module

    def guarded(name: str, *others: Any, **more: Any) -> Any:
        if name.partition(".")[0] in HEAVY:
            raise _Reached(name)
        return usual(name, *others, **more)

    def guarded_by_name(name: str, package: str | None = None) -> Any:
        if name.partition(".")[0] in HEAVY:
            raise _Reached(name)
        return by_name(name, package)

    monkeypatch.setattr(builtins, "__import__", guarded)
    monkeypatch.setattr(progress.importlib, "import_module", guarded_by_name)


MODEL = "some/model"
_EVALUATION = EvaluationSettings(model=MODEL)
LOADERS: dict[str, Callable[[], Any]] = {
    "config": lambda: models.load_config(MODEL),
    "skeleton": lambda: models.load_skeleton(MODEL),
    "tokenizer": lambda: models.load_tokenizer(MODEL),
    "model": lambda: models.load_causal_lm(MODEL),
    "device": models.device,
    "encoder": lambda: Encoder(EmbeddingSettings(model=MODEL)),
    "evaluated model": lambda: harness.load_model(_EVALUATION, MODEL),
    "tasks": lambda: suite.index_of(*suite.open_suite(_EVALUATION)),
    "processes": lambda: to_launch(FinetuningSettings(model=MODEL)),
    "gpu": gpu,
}


@pytest.mark.parametrize("loader", LOADERS)
def test_a_loader_speaks_before_it_imports(loader: str, lines: list[str], nothing_imported: None) -> None:
    with pytest.raises(_Reached):
        LOADERS[loader]()
    assert any(line.startswith("loading") for line in lines)


def test_a_model_is_named_with_its_size_before_its_weights_are_read(
    lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "model.safetensors").write_bytes(bytes(3_000_000))
    seen: list[list[str]] = []

    def load(*_: Any, **__: Any) -> Any:
        seen.append(list(lines))
        raise ModelError("stops here")

    monkeypatch.setattr(models, "_load", load)
    with pytest.raises(ModelError):
        models.load_causal_lm(str(tmp_path / "small"))
    assert any("small (3 MB)" in line for line in seen[0])
    assert not any(line.startswith("loaded small") for line in lines)  # it was not


def test_what_is_imported_already_or_loaded_at_once_is_not_spoken_of(lines: list[str]) -> None:
    load_packages("json", "logging")
    with loading("a trifle", at_once=False):
        pass
    assert lines == []
    with pytest.raises(ImportError):
        load_packages("no_such_package_at_all")
    assert len(lines) == 1  # begun, never loaded


def test_what_lasts_is_spoken_of_again(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_REMINDER_SECONDS", 0.02)
    monkeypatch.setattr(progress, "_SHORT_SECONDS", 0.02)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)

    def spoken(count: int) -> None:
        end = time.monotonic() + 60
        while len(lines) < count and time.monotonic() < end:
            time.sleep(0.01)
        assert len(lines) >= count

    with loading("much", at_once=False):
        spoken(2)
    lines.clear()
    with Progress("work", 5):
        spoken(2)
    assert all(line.startswith("work: 0 of 5") for line in lines)


def test_a_package_that_is_missing_is_still_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError

    monkeypatch.setattr(models, "quiet_bars", missing)
    with pytest.raises(MissingExtraError):
        models.load_config(MODEL)
