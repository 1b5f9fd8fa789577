from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tamis.core.errors import InputError, UnexpectedError
from tamis.core.processes import runs
from tamis.core.workers import in_order


def doubled(item: int) -> int:
    time.sleep(0.02 * (item % 3))
    if item == -1:
        raise InputError("minus one", action="none")
    if item == -2:
        os.kill(os.getpid(), signal.SIGKILL)
    if item == -3:
        print("printed", flush=True)
    return 2 * item


def process_of(item: int) -> int:
    return os.getpid()


@pytest.mark.parametrize(("processes", "alone"), [(1, 0), (2, 0), (3, 4), (2, 100)])
def test_results_come_in_the_order_of_the_items(processes: int, alone: int) -> None:
    assert list(in_order(doubled, range(20), processes, alone=alone)) == [2 * item for item in range(20)]


def test_the_first_items_and_those_of_one_process_need_no_others() -> None:
    here = os.getpid()
    assert set(in_order(process_of, range(5), 1)) == {here}
    first, *others = in_order(process_of, range(9), 2, alone=1)
    assert first == here
    assert here not in others


@pytest.mark.parametrize("processes", [1, 2])
def test_errors_come_in_the_place_of_their_result(processes: int) -> None:
    seen: list[int] = []
    results = in_order(doubled, [1, 2, -1, 4], processes)
    with pytest.raises(InputError) as error:
        seen.extend(results)
    assert (seen, error.value.problem, error.value.permanent) == ([2, 4], "minus one", True)


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_of_the_items_comes_after_the_results_before_it(processes: int) -> None:
    def items() -> Iterator[int]:
        yield from (1, 2, 3)
        raise InputError("damaged", action="none")

    seen: list[int] = []
    results = in_order(doubled, items(), processes)
    with pytest.raises(InputError):
        seen.extend(results)
    assert seen == [2, 4, 6]


def test_a_process_that_is_killed_ends_the_work() -> None:
    with pytest.raises(UnexpectedError) as error:
        list(in_order(doubled, [1, -2, 3], 2))
    assert "-9" in error.value.problem


def test_what_a_function_prints_is_not_taken_for_its_result() -> None:
    assert list(in_order(doubled, [-3, 1], 2)) == [-6, 2]


def test_few_items_are_read_ahead() -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = in_order(doubled, items(), 2)
    assert next(results) == 0
    assert len(taken) <= 5


def test_processes_end_with_the_iteration() -> None:
    results = in_order(process_of, range(100), 2)
    child = next(results)
    results.close()
    assert not runs(child)


def test_a_script_without_a_guard_is_not_run_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from tamis.core.workers import in_order\nfrom math import factorial\n"
        "print('started', list(in_order(factorial, range(4), 2)))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, check=True)
    assert run.stdout == "started [1, 1, 2, 6]\n"
