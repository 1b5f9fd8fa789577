"""Components' frame: a failing cell of an experiment, and what ends a pod all the same."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from kfp import dsl

from tamis.core.artifacts import Manifest
from tamis.core.errors import MissingExtraError, ModelError, StoppedError, StorageError, TamisError
from tamis.core.failures import failure_in
from tamis.core.last_words import REASON_FILE
from tamis.core.settings import StageSettings
from tamis.core.steps import Step, run_step
from tamis.curation.component import curate
from tamis.curation.settings import CurationSettings
from tamis.kubeflow import RUNNER_PID, execute, execute_cell, require_whole
from tests.artifacts import NoSettings, conversation, make_selection


class Named(StageSettings):
    OUTPUT_REVISION: ClassVar[int] = 1

    name: str = ""


SAMPLES = [conversation("Name a metal.", "Copper.")]


@pytest.fixture
def selection(tmp_path: Path) -> str:
    return str(make_selection(tmp_path / "selection", SAMPLES, name="best"))


def cell(
    out: Path, source: str | None, error: Exception | None = None, stage: str = "model", variant: str = ""
) -> dsl.Artifact:
    """Run a cell that ends with `error`, or makes a model."""

    def body(step: Step[NoSettings]) -> None:
        if error is not None:
            raise error
        (step.out / "weights").write_text("w")

    def run(settings: NoSettings, *, out: str) -> object:
        return run_step("test", "model", settings, body, out=out, name="best")

    made = dsl.Model(name=stage, uri=str(out))
    execute_cell(run, NoSettings, {"variant": variant}, source=source, out=made, metrics=dsl.Metrics(uri=str(out)))  # type: ignore[arg-type]
    return made


def test_a_failure_is_left_in_place_of_the_artifact_under_the_name_of_its_subset(
    selection: str, tmp_path: Path
) -> None:
    made = cell(tmp_path / "model", selection, ModelError("the loss is not finite", action="lower learning_rate"))
    failure = failure_in(tmp_path / "model")
    assert failure is not None
    assert (failure.name, failure.stage, failure.code) == ("best", "model", "model")
    assert "the loss is not finite" in failure.reason
    assert "lower learning_rate" in failure.reason
    assert not (tmp_path / "model" / "manifest.json").exists()
    assert made.metadata == {"name": "best", "failed": "model"}


def test_the_step_behind_a_failure_passes_it_on_and_does_nothing(selection: str, tmp_path: Path) -> None:
    cell(tmp_path / "model", selection, ModelError("the loss is not finite"), variant="trained so")
    cell(tmp_path / "scores", str(tmp_path / "model"), stage="evaluation", variant="asked so")
    first, passed_on = (failure_in(tmp_path / name) for name in ("model", "scores"))
    assert first is not None
    assert passed_on is not None
    assert first.settings == {"model": {"variant": "trained so"}}
    assert passed_on.settings == first.settings | {"evaluation": {"variant": "asked so"}}
    assert passed_on.model_copy(update={"settings": first.settings}) == first


def test_a_cell_that_ends_well_has_no_failure(selection: str, tmp_path: Path) -> None:
    made = cell(tmp_path / "model", selection)
    assert failure_in(tmp_path / "model") is None
    assert made.metadata["kind"] == "model"


def test_the_cell_of_the_base_model_is_called_base(tmp_path: Path) -> None:
    cell(tmp_path / "scores", None, ModelError("cannot load the model"), stage="evaluation")
    failure = failure_in(tmp_path / "scores")
    assert failure is not None
    assert failure.name == "base"


@pytest.mark.parametrize("error", [KeyError("doc_to_target"), AssertionError(), OSError("no such model")])
def test_an_error_of_a_library_is_the_cell_s_failure(selection: str, tmp_path: Path, error: Exception) -> None:
    cell(tmp_path / "model", selection, error)
    failure = failure_in(tmp_path / "model")
    assert failure is not None
    assert (failure.name, failure.stage, failure.code) == ("best", "model", "unexpected")
    assert type(error).__name__ in failure.reason
    assert " ".join(str(error).split()) in failure.reason


@pytest.mark.parametrize("error", [StorageError("no answer"), MissingExtraError("no package 'trl'")])
def test_what_another_try_may_mend_ends_the_pod(selection: str, tmp_path: Path, error: TamisError) -> None:
    with pytest.raises(SystemExit):
        cell(tmp_path / "model", selection, error)
    assert failure_in(tmp_path / "model") is None


def test_a_fault_of_the_operating_system_ends_the_pod_and_is_told(
    selection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = tmp_path / "reason"
    reason.touch()
    monkeypatch.setenv(REASON_FILE, str(reason))
    with pytest.raises(OSError, match="remote"):
        cell(tmp_path / "model", selection, OSError(errno.EREMOTEIO, "remote I/O error"))
    assert failure_in(tmp_path / "model") is None
    assert "remote I/O error" in reason.read_text()
    with pytest.raises(SystemExit):  # a kind that is known is told in plain words
        cell(tmp_path / "model", selection, OSError(errno.ESTALE, "stale file handle"))
    assert failure_in(tmp_path / "model") is None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StorageError("no answer", action="look at it"), "storage"),
        (MissingExtraError("no package 'trl'"), "missing-extra"),
        (FileNotFoundError(errno.ENOENT, "no such file", "/nowhere/weights"), "unexpected"),
        (OSError(errno.EREMOTEIO, "remote I/O error"), "unexpected"),
    ],
)
def test_on_one_machine_where_there_is_no_other_try_each_error_is_the_cell_s_failure(
    selection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    monkeypatch.setenv(RUNNER_PID, str(os.getppid()))
    cell(tmp_path / "model", selection, error)
    failure = failure_in(tmp_path / "model")
    assert failure is not None
    assert (failure.name, failure.stage, failure.code) == ("best", "model", code)
    assert str(error).splitlines()[0] in failure.reason


def test_on_one_machine_a_stop_and_a_disk_that_takes_no_failure_end_the_step(
    selection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = tmp_path / "reason"
    reason.touch()
    monkeypatch.setenv(REASON_FILE, str(reason))
    monkeypatch.setenv(RUNNER_PID, str(os.getppid()))
    with pytest.raises(SystemExit):
        cell(tmp_path / "model", selection, StoppedError("ended"))
    assert failure_in(tmp_path / "model") is None

    def full(*_: object) -> None:
        raise StorageError("no space left on the device")

    monkeypatch.setattr("tamis.core.failures.write_bytes", full)
    with pytest.raises(SystemExit):
        cell(tmp_path / "model", selection, ModelError("the loss is not finite"))
    assert "no space left" in reason.read_text()


SPILL = """
import sys
from typing import ClassVar
from tamis.core.errors import ModelError
from tamis.kubeflow import execute, execute_cell
from tamis.core.settings import StageSettings
from kfp import dsl

def run(settings, *, out):
    raise {"ours": ModelError, "other": ValueError}[sys.argv[1]](f"it says {settings.extra['api_key']}")

class Own(StageSettings):
    OUTPUT_REVISION: ClassVar[int] = 1
    extra: dict[str, str]

frame = {"whole": execute, "cell": execute_cell}[sys.argv[2]]
more = {"source": None} if sys.argv[2] == "cell" else {}
place = dsl.Artifact(name="model", uri=sys.argv[3])
frame(run, Own, {"extra": {"api_key": "key-of-this-run"}}, out=place, metrics=dsl.Metrics(uri=sys.argv[3]), **more)
"""


@pytest.mark.parametrize("error", ["ours", "other"])
@pytest.mark.parametrize("frame", ["whole", "cell"])
def test_a_component_tells_no_secret(error: str, frame: str, tmp_path: Path) -> None:
    reason, out = tmp_path / "reason", tmp_path / "out"
    reason.touch()
    done = subprocess.run(
        [sys.executable, "-c", SPILL, error, frame, str(out)],
        check=False, capture_output=True, text=True, timeout=120,
        env=os.environ | {REASON_FILE: str(reason), "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    left = done.stdout + done.stderr + reason.read_text()
    left += (out / "failure.json").read_text() if frame == "cell" else ""
    assert "it says ***" in left
    assert "key-of-this-run" not in left


@pytest.mark.parametrize(("compiled_for", "fits"), [("1", True), ("2", False)])
def test_an_image_of_another_revision_than_the_pipeline_does_no_work(
    compiled_for: str, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = tmp_path / "reason"
    reason.touch()
    monkeypatch.setenv(REASON_FILE, str(reason))
    monkeypatch.setattr(sys, "argv", ["executor_main.py", "--output-revision", compiled_for])
    out, calls = tmp_path / "out", list[NoSettings]()

    def stage(settings: NoSettings, *, out: str) -> Manifest:
        calls.append(settings)
        return run_step("test", "pool", settings, lambda step: None, out=out)

    def start() -> None:
        execute(stage, NoSettings, {}, out=dsl.Artifact(uri=str(out)), metrics=dsl.Metrics(uri=str(out)))

    if fits:
        start()
    else:
        with pytest.raises(SystemExit):
            start()
    assert len(calls) == fits
    assert ("revision 2" in reason.read_text()) == (not fits)


def test_the_revision_of_a_stage_is_an_argument_of_its_container() -> None:
    """Kubeflow's cache looks at a step's image and arguments, not at what is in the image."""
    arguments = curate.component_spec.implementation.container.args
    assert arguments[-2:] == ["--output-revision", str(CurationSettings.OUTPUT_REVISION)]


def test_a_run_with_failed_cells_ends_with_all_their_reasons(
    selection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = tmp_path / "reason"
    reason.touch()
    monkeypatch.setenv(REASON_FILE, str(reason))
    cell(tmp_path / "model", selection, ModelError("the loss is not finite"))
    failure = failure_in(tmp_path / "model")
    assert failure is not None

    with pytest.raises(SystemExit):
        require_whole([failure])
    assert "model of 'best': the loss is not finite" in reason.read_text()
    assert "Kubeflow" in reason.read_text()
    monkeypatch.setenv(RUNNER_PID, str(os.getpid()))  # as `tamis run` does
    with pytest.raises(SystemExit):
        require_whole([failure])
    assert "model of 'best': the loss is not finite" in reason.read_text()
    assert "Kubeflow" not in reason.read_text()


@pytest.mark.parametrize(("name", "what"), [("llama", "ratings of 'llama'"), ("", "ratings")])
def test_a_failed_step_says_what_it_was_to_make(
    name: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = tmp_path / "reason"
    reason.touch()
    monkeypatch.setenv(REASON_FILE, str(reason))

    def fail(*_: object, **__: object) -> None:
        raise ModelError("it does not answer")

    settings = {"name": name} if name else {}
    made = dsl.Dataset(name="ratings", uri=str(tmp_path / "out"))
    with pytest.raises(SystemExit):
        execute(fail, Named, settings, out=made, metrics=dsl.Metrics())  # type: ignore[arg-type]
    assert reason.read_text() == f"making {what} failed: it does not answer"
    require_whole([])
