"""Steps that work for several cells in one pod: each cell's artifact, failure and process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
from kfp import dsl

from tamis.cells import ATTEMPT, execute_cells, execute_each, parts
from tamis.core.artifacts import Manifest, manifest_of
from tamis.core.errors import ModelError, StorageError
from tamis.core.failures import failure_in
from tamis.core.finished import PLACE
from tamis.core.last_words import REASON_FILE
from tamis.core.settings import StageSettings
from tamis.core.steps import Step, run_step


class Own(StageSettings):
    """Settings of a stage that does what they say."""

    OUTPUT_REVISION: ClassVar[int] = 1

    name: str
    seed: int = 0
    does: str = "well"
    log: str = ""


def stage(settings: Own, *, out: str, selection: str | None = None) -> Manifest:
    def body(step: Step[Own]) -> None:
        with Path(settings.log).open("a") as file:
            file.write(f"{settings.name} {os.getpid()}\n")
        if settings.does == "fail":
            raise ModelError("it does not work")
        if settings.does == "no storage":
            raise StorageError("no answer")
        if settings.does == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if settings.does == "wait":
            os.kill(os.getppid(), signal.SIGTERM)
            for _ in range(600):
                time.sleep(0.1)
        if settings.does == "fail oddly":
            raise ModelError("no file called \udcff")
        (step.out / "made").write_text(f"{settings.name} {settings.seed}")
        step.rows = 3

    return run_step("test", "selection", settings, body, out=out, name=settings.name)


class Pod:
    """A pod that works for cells; `home` is a volume of its own."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.log, self.reason = folder, folder / "log", folder / "reason"
        self.out = dsl.Dataset(name="selection", uri=str(folder / "out"), metadata={})
        self.metrics = dsl.Metrics(name="metrics", uri=str(folder / "metrics"), metadata={})
        folder.mkdir(exist_ok=True)
        self.reason.touch()
        patch.setenv("TAMIS_HOME", str(folder / "home"))
        patch.setenv(REASON_FILE, str(self.reason))

    def work(self, *cells: dict[str, Any], apart: bool = False, **common: Any) -> None:
        settings = {"log": str(self.log)} | common
        execute_cells(stage, Own, settings, [*cells], out=self.out, metrics=self.metrics, apart=apart)

    @property
    def worked(self) -> list[str]:
        return [line.split()[0] for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pod:
    return Pod(tmp_path / "pod", monkeypatch)


A, B, C = ({"name": name} for name in "abc")


def test_each_cell_has_its_own_artifact_from_its_own_and_the_common_settings(pod: Pod) -> None:
    pod.work(A, B | {"seed": 2}, seed=1)
    places = parts(pod.out.path)
    assert [Path(place).name for place in places] == ["0000", "0001"]
    assert [Path(place, "made").read_text() for place in places] == ["a 1", "b 2"]
    assert pod.out.metadata == {"cells": 2, "rows": 6, "failed": 0}
    assert pod.metrics.metadata["rows"] == 6


def test_a_failed_cell_leaves_the_others_alone(pod: Pod) -> None:
    pod.work(A, B | {"does": "fail"}, C)
    first, second, third = parts(pod.out.path)
    assert failure_in(second) is not None
    assert [manifest_of(place) is not None for place in (first, third)] == [True, True]
    assert pod.out.metadata["failed"] == pod.metrics.metadata["failed"] == 1


def test_the_number_of_an_attempt_is_no_setting(pod: Pod) -> None:
    pod.work(A | {ATTEMPT: 2})
    (place,) = parts(pod.out.path)
    assert manifest_of(place) is not None


def test_a_pod_that_is_tried_again_makes_no_finished_cell_again(
    pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLACE, str(tmp_path / "finished"))
    with pytest.raises(SystemExit):
        pod.work(A, B | {"does": "no storage"}, C)
    assert pod.worked == ["a", "b"]
    again = Pod(tmp_path / "again", monkeypatch)
    again.work(A, B, C, log=str(pod.log))
    assert pod.worked == ["a", "b", "b", "c"]
    assert [Path(place, "made").read_text() for place in parts(again.out.path)] == ["a 0", "b 0", "c 0"]


def test_cells_that_do_not_free_their_memory_have_a_process_each(pod: Pod) -> None:
    pod.work(A, B | {"does": "fail"}, apart=True)
    processes = {line.split()[1] for line in pod.log.read_text().splitlines()}
    assert len(processes) == 2
    assert str(os.getpid()) not in processes
    assert failure_in(parts(pod.out.path)[1]) is not None
    assert pod.out.metadata["failed"] == 1


@pytest.mark.parametrize(("does", "words"), [("no storage", "no answer"), ("die", "ended by signal 9")])
def test_what_ends_a_cell_s_process_ends_the_pod_with_the_reason(pod: Pod, does: str, words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        pod.work(A, B | {"does": does}, apart=True)
    assert ended.value.code == 1
    assert words in pod.reason.read_text()
    assert pod.worked == ["a", "b"]


def test_a_pod_that_is_to_stop_stops_the_cell_s_process_in_order(pod: Pod) -> None:
    with pytest.raises(SystemExit) as ended:
        pod.work(A, B | {"does": "wait"}, C, apart=True)
    assert ended.value.code == 1
    assert "SIGTERM" in pod.reason.read_text()
    assert pod.worked == ["a", "b"]
    assert multiprocessing.active_children() == []


def test_a_failure_with_what_utf_8_cannot_write_leaves_the_others_alone(pod: Pod) -> None:
    pod.work(A | {"does": "fail oddly"}, B)
    failed, made = parts(pod.out.path)
    assert failure_in(failed) is not None
    assert manifest_of(made) is not None


def test_cells_stay_in_order_however_many_there_are(tmp_path: Path) -> None:
    numbers = [9_998, 9_999, 10_000, 10_001]
    for number in numbers:
        (tmp_path / f"{number:04d}").mkdir()
    (tmp_path / "9998.metrics").touch()
    assert parts(str(tmp_path)) == [str(tmp_path / str(number)) for number in numbers]


def test_a_step_of_one_cell_has_no_folder_for_it(pod: Pod) -> None:
    execute_cells(stage, Own, {"name": "a", "log": str(pod.log)}, None, out=pod.out, metrics=pod.metrics)
    assert parts(pod.out.path) == [pod.out.path]
    assert Path(pod.out.path, "made").exists()


def test_an_input_that_each_cell_has_is_its_own(pod: Pod, tmp_path: Path) -> None:
    pod.work(A, B)
    later = dsl.Model(name="selection", uri=str(tmp_path / "later"), metadata={})
    seen: list[str | None] = []

    def look(settings: Own, *, out: str, selection: str | None = None) -> Manifest:
        seen.append(selection)
        return stage(settings, out=out)

    given = [{"name": "a"}, {"name": "b"}]
    common, of_each = {"log": str(pod.log)}, {"selection": pod.out.path}
    execute_cells(look, Own, common, given, out=later, metrics=pod.metrics, of_each=of_each)
    assert seen == parts(pod.out.path)


def test_settings_in_one_pod_each_make_an_artifact_and_the_first_that_fails_ends_it(pod: Pod) -> None:
    each = [one | {"log": str(pod.log)} for one in (A, B)]
    execute_each(stage, Own, each, out=pod.out, metrics=pod.metrics)
    assert [Path(place, "made").read_text() for place in parts(pod.out.path)] == ["a 0", "b 0"]
    with pytest.raises(SystemExit):
        execute_each(stage, Own, [each[0] | {"does": "fail", "seed": 9}], out=pod.out, metrics=pod.metrics)
