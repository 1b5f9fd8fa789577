"""Cores of a machine and of a container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tamis.core import processes


@pytest.mark.parametrize(
    ("limit", "expected"), [("max 100000", 8), ("250000 100000", 3), ("5000 100000", 1), ("6400000 100000", 8), ("", 8)]
)
def test_cores_are_those_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, expected: int
) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(f"{limit}\n")
    monkeypatch.setattr(processes, "_QUOTA", quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert processes.cores() == expected


def test_without_a_container_cores_are_those_the_process_is_bound_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_QUOTA", tmp_path / "absent")
    assert processes.cores() == len(os.sched_getaffinity(0))
