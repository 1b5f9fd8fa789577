"""Several processes train as one does, and say why they could not."""

from __future__ import annotations

import logging
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from tamis.core.artifacts import Artifact
from tamis.core.errors import ArtifactError, ModelError, SettingsError, StoppedError, TamisError
from tamis.finetuning.processes import Failure, _reason, report, to_launch, world
from tamis.finetuning.settings import FinetuningSettings
from tamis.finetuning.stage import run
from tests.artifacts import make_selection
from tests.unit.finetuning.conftest import samples
from tests.unit.finetuning.test_stage import history_of
from tests.unit.finetuning.test_training import settings_of

LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "PET_NNODES", "PET_NPROC_PER_NODE")


@pytest.fixture(autouse=True)
def _not_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets how many GPUs this machine seems to have."""
    import torch

    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def losses(model: Path) -> list[float]:
    return [row["loss"] for row in history_of(model)]


def same_adapters(one: Path, other: Path) -> None:
    from safetensors.torch import load_file
    from torch.testing import assert_close

    weights = [load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        assert_close(weights[1][name], weight, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("visible", "values", "environment", "expected"),
    [
        (0, {}, {}, 0),
        (0, {"processes": 2}, {}, 2),
        (0, {"deepspeed": "zero2"}, {}, 1),
        (1, {}, {}, 0),
        (4, {}, {}, 4),
        (4, {"processes": 1}, {}, 1),  # alone, and kept from the other GPUs
        (4, {}, {"WORLD_SIZE": "8"}, 0),
        (4, {}, {"PET_NPROC_PER_NODE": "2"}, 2),
        (4, {}, {"PET_NPROC_PER_NODE": "auto"}, 4),
        (1, {}, {"PET_NNODES": "2"}, 1),
    ],
)
def test_one_process_per_gpu_is_started_unless_told_otherwise(
    gpus: Any,
    monkeypatch: pytest.MonkeyPatch,
    visible: int,
    values: dict[str, Any],
    environment: dict[str, str],
    expected: int,
) -> None:
    gpus(visible)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert to_launch(FinetuningSettings(**values)) == expected


def test_more_processes_than_gpus_are_refused(gpus: Any) -> None:
    gpus(2)
    with pytest.raises(SettingsError) as caught:
        to_launch(FinetuningSettings(processes=3))
    assert caught.value.problem.startswith("finetuning.processes")
    assert "1 to 2" in caught.value.allowed


def test_several_processes_that_torchrun_did_not_start_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(SettingsError) as caught:
        world()
    assert "LOCAL_RANK" in caught.value.problem
    assert "torchrun" in caught.value.action


def killed(rank: int, exitcode: int) -> dict[int, ProcessFailure]:
    return {rank: ProcessFailure(local_rank=rank, pid=1, exitcode=exitcode, error_file="none")}


def test_the_reason_of_a_failure_is_the_error_on_purpose_before_a_kill_before_any_other(tmp_path: Path) -> None:
    stopped = _reason(tmp_path, killed(3, -signal.SIGKILL))
    assert isinstance(stopped, StoppedError)  # another try may succeed
    assert re.search(r"\b3\b.*SIGKILL", stopped.problem)
    assert "exit code 7" in _reason(tmp_path, killed(3, 7)).problem
    report(tmp_path, 0, RuntimeError("connection closed by peer"))
    assert "SIGKILL" in _reason(tmp_path, killed(1, -signal.SIGKILL)).problem
    told = _reason(tmp_path, killed(0, 1))
    assert isinstance(told, ModelError)
    assert re.search(r"\b0\b.*RuntimeError: connection closed by peer", told.problem)
    report(tmp_path, 1, SettingsError("no", allowed="yes", action="say yes"))
    told = _reason(tmp_path, killed(1, -signal.SIGKILL))
    assert isinstance(told, SettingsError)
    assert (told.problem, told.allowed, told.action) == ("no", "yes", "say yes")


@pytest.mark.parametrize(
    "kind", [kind for kind in TamisError.__subclasses__() if kind.__module__ == TamisError.__module__]
)
def test_every_error_comes_back_as_it_was_told(kind: type[TamisError]) -> None:
    error = Failure.of(kind("seen", allowed="this", action="do"), rank=1).as_error()
    assert type(error) is kind
    assert str(error) == str(kind("seen", allowed="this", action="do"))
    assert error.exit_code == kind("seen").exit_code
    assert Failure.of(kind("seen", permanent=True), rank=1).as_error().exit_code == 78


def test_the_error_of_a_process_is_raised_by_the_command_that_started_it(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    with pytest.raises(ArtifactError, match="selection"):
        run(settings_of(tiny, processes=2), selection=tmp_path / "selection", out=tmp_path / "out")
    assert (dict(os.environ), signal.getsignal(signal.SIGTERM)) == (before, handler)
    assert logging.root.manager.disable == logging.NOTSET
    assert "Traceback" not in capfd.readouterr().err


def test_two_processes_train_as_one_does(tiny: Path, tmp_path: Path) -> None:
    # Eleven samples: the last step of an epoch is short, and one process has less to learn in it.
    selection = make_selection(tmp_path / "selection", samples(11))
    lora = {"rank": 4, "dropout": 0}
    run(settings_of(tiny, lora=lora, epochs=2), selection=selection, out=tmp_path / "one")
    settings = settings_of(tiny, lora=lora, epochs=2, processes=2, micro_batch_size=1)
    manifest = run(settings, selection=selection, out=tmp_path / "two")
    assert manifest == Artifact.open(tmp_path / "two", "model").manifest
    assert (manifest.facts["processes"], manifest.facts["steps"]) == (2, 6)
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5)
    same_adapters(tmp_path / "one", tmp_path / "two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "selection", "two"]
