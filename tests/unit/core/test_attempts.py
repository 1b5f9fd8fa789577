"""Further attempts of a step on Kubeflow: made after a failure that may pass, ended at once after one that cannot."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from tamis.cells import execute_cells
from tamis.core.errors import ArtifactError, ModelError, StorageError, TamisError
from tamis.core.last_words import REASON_FILE
from tamis.core.marks import read_marks, read_words, words_name
from tamis.core.run_place import OUTCOMES, RETRIES, place_of
from tamis.core.steps import Step, run_step
from tamis.kubeflow import ending, execute, execute_cell
from tests.artifacts import NoSettings


class NamedSettings(NoSettings):
    """Settings of a cell."""

    name: str = ""


FOR_GOOD = ArtifactError("it contains a finished model that was made from other settings")


class Attempts:
    """Attempts of one execution of a step, in a run whose artifacts are in `root`."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, run: str = "") -> None:
        self.root, self.patch, self.run = root, patch, run or str(uuid.uuid4())
        self.uri = f"{root}/data-selection/{self.run}/finetune/{uuid.uuid4()}/model"
        self.calls = 0
        self.reason = root / "reason"
        self.reason.touch()
        patch.setenv(REASON_FILE, str(self.reason))

    def make(self, number: int, error: TamisError | None, *, cell: bool = False) -> int:
        """Make an attempt, counted from 1, that would end by `error`; returns the exit code."""
        self.patch.setenv(RETRIES, str(number - 1))

        def body(step: Step[NoSettings]) -> None:
            (step.out / "weights").write_text("w")

        def run(settings: NoSettings, *, out: str) -> Any:
            self.calls += 1
            if error is not None:
                raise error
            return run_step("test", "model", settings, body, out=out)

        given: dict[str, Any] = {"out": dsl.Model(name="model", uri=self.uri), "metrics": dsl.Metrics(uri=self.uri)}
        try:
            if cell:
                execute_cell(run, NoSettings, {}, source=None, name="best", **given)
            else:
                execute(run, NoSettings, {}, **given)
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0


@pytest.fixture
def attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attempts:
    monkeypatch.delenv(OUTCOMES, raising=False)
    return Attempts(tmp_path, monkeypatch)


def test_after_a_permanent_error_the_next_attempts_do_nothing_and_say_the_same(attempts: Attempts) -> None:
    assert attempts.make(1, FOR_GOOD) == 78
    said = attempts.reason.read_text()
    attempts.reason.write_text("")
    assert [attempts.make(number, None) for number in (2, 3)] == [78, 78]
    assert attempts.calls == 1
    assert attempts.reason.read_text() == said
    place = place_of(attempts.uri)
    assert place is not None
    words = read_words(place)
    assert words is not None
    assert (words.attempt, words.code, words.permanent) == (1, "artifact", True)


def test_after_any_other_error_the_next_attempt_works(attempts: Attempts) -> None:
    assert attempts.make(1, StorageError("no answer")) == 1
    assert attempts.make(2, None) == 0
    assert attempts.calls == 2


def test_a_permanent_error_of_a_later_attempt_ends_those_after_it(attempts: Attempts) -> None:
    codes = [attempts.make(number, error) for number, error in enumerate((StorageError("away"), FOR_GOOD, None), 1)]
    assert codes == [1, 78, 78]
    assert attempts.calls == 2


def test_a_cell_s_step_ends_at_once_too(attempts: Attempts) -> None:
    refused = StorageError("AccessDenied", permanent=True)
    assert [attempts.make(number, refused, cell=True) for number in (1, 2)] == [78, 78]
    assert attempts.calls == 1


def test_a_step_of_several_cells_ends_at_once_too(attempts: Attempts) -> None:
    made: list[str] = []

    def run(settings: NoSettings, *, out: str) -> Any:
        made.append(settings.variant)
        if settings.variant == "b":
            raise StorageError("AccessDenied", permanent=True)
        return run_step("test", "model", settings, lambda step: None, out=out)

    for number in ("0", "1"):
        attempts.patch.setenv(RETRIES, number)
        out, metrics = dsl.Model(name="model", uri=attempts.uri), dsl.Metrics(name="metrics", uri=attempts.uri)
        with pytest.raises(SystemExit) as ended:
            execute_cells(run, NoSettings, {}, [{"variant": "a"}, {"variant": "b"}], out=out, metrics=metrics)
        assert ended.value.code == 78
    assert made == ["a", "b"]


def test_a_cell_that_failed_in_an_earlier_attempt_of_its_pod_and_is_then_made_is_no_failed_cell(
    attempts: Attempts,
) -> None:
    def run(settings: NoSettings, *, out: str) -> Any:
        if settings.variant in failing:
            raise failing[settings.variant]
        return run_step("test", "model", settings, lambda step: None, out=out)

    def attempt(number: int) -> None:
        attempts.patch.setenv(RETRIES, str(number - 1))
        out, metrics = dsl.Model(name="model", uri=attempts.uri), dsl.Metrics(name="metrics", uri=attempts.uri)
        cells = [{"variant": name, "name": name} for name in "abc"]
        execute_cells(run, NamedSettings, {}, cells, out=out, metrics=metrics)

    failing: dict[str, TamisError] = {"a": ModelError("out of memory"), "b": StorageError("no answer")}
    with pytest.raises(SystemExit):
        attempt(1)
    place = place_of(attempts.uri)
    assert place is not None
    assert [cell.cell for cell in read_marks(place).cells] == ["a"]
    failing = {"c": ModelError("NaN")}
    shutil.rmtree(attempts.uri)  # another pod has other disks
    attempt(2)
    assert [cell.cell for cell in read_marks(place).cells] == ["c"]


def test_a_step_that_runs_no_stage_ends_at_once_too(attempts: Attempts) -> None:
    out, made = dsl.Artifact(name="started", uri=attempts.uri), list[str]()

    def attempt() -> None:
        with ending(out):
            made.append("attempt")
            raise FOR_GOOD

    for number in ("0", "1"):
        attempts.patch.setenv(RETRIES, number)
        with pytest.raises(SystemExit) as ended:
            attempt()
        assert ended.value.code == 78
    assert made == ["attempt"]


def test_an_execution_knows_nothing_of_others(attempts: Attempts, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts.make(1, FOR_GOOD)
    other = Attempts(attempts.root, monkeypatch, attempts.run)
    assert other.make(2, None) == 0


def test_a_first_attempt_looks_for_nothing(attempts: Attempts) -> None:
    attempts.make(1, FOR_GOOD)
    assert attempts.make(1, None) == 0  # a run that was started again in Kubeflow's UI, with the cause removed


def test_a_mark_that_cannot_be_read_stops_no_attempt(attempts: Attempts) -> None:
    attempts.make(1, FOR_GOOD)
    place = place_of(attempts.uri)
    assert place is not None
    for folder in place.folders:
        Path(str(folder), words_name(place)).write_text("{")
    assert attempts.make(2, None) == 0
