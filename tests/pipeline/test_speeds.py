"""What work takes on this machine: by earlier steps of the same kind here, by limits, or not known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tamis.core.artifacts import MANIFEST, Execution, Manifest
from tamis.core.hardware import hardware
from tamis.llm.backends.openai import OpenAISettings
from tamis.llm.backends.openai_batch import OpenAIBatchSettings
from tamis_pipelines.speeds import Speed, Speeds, Time, as_words, key_of, sum_of, within_limits

ENCODER = {"model": "m", "precision": "auto", "max_tokens": 512}


def finished(home: Path, rows: int, seconds: float, **changes: Any) -> None:
    """A finished embedding of so many samples."""
    ran = {"started": "2026-01-01T00:00:00", "seconds": seconds, "peak_memory_bytes": 1, "machine": hardware()}
    execution = Execution(**ran | {name: changes.pop(name) for name in ("machine", "resumed") if name in changes})
    made = Manifest(
        **{"kind": "embeddings", "schema_version": 1, "name": "", "rows": rows, "content_hash": "", "files": []},
        **{"stage": "embedding", "key": "", "config": ENCODER, "config_hash": "", "inputs": {}, "models": {}},
        **{"facts": changes.pop("facts", {}), "versions": {}, "execution": execution},
    ).model_copy(update=changes)
    folder = home / "artifacts" / f"{rows}-{seconds}"
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(made.model_dump_json())


def embedding(home: Path, units: float, **changes: Any) -> Time:
    return Speeds(home).time(key_of("embedding", ENCODER | changes), units)


def test_time_is_by_the_earlier_step_that_is_nearest_in_size(tmp_path: Path) -> None:
    finished(tmp_path, 100, 50.0)
    finished(tmp_path, 10_000, 1_000.0)
    assert embedding(tmp_path, 200).seconds == pytest.approx(100)
    assert embedding(tmp_path, 20_000).seconds == pytest.approx(2_000)
    assert not embedding(tmp_path, 20_000).at_most
    assert embedding(tmp_path, 200_000).at_most, "loading the model counts twenty times"
    assert "10,000 samples" in embedding(tmp_path, 20_000).rests


@pytest.mark.parametrize(
    "changes", [{"machine": "64 x another"}, {"machine": ""}, {"resumed": True}, {"facts": {"taken_over": 5}}]
)
def test_steps_of_another_machine_or_of_a_part_of_the_work_say_nothing(tmp_path: Path, changes: dict[str, Any]) -> None:
    finished(tmp_path, 100, 50.0, **changes)
    assert embedding(tmp_path, 100).seconds is None


def test_another_model_is_not_known(tmp_path: Path) -> None:
    finished(tmp_path, 100, 50.0)
    assert embedding(tmp_path, 100, model="other").seconds is None
    assert embedding(tmp_path, 0, model="other").seconds == 0, "no work takes no time"


def test_loading_counts_once_where_it_is_known() -> None:
    assert Speed(units=10, seconds=5, fixed=60, where="").time(1_000) == Time(560, "")


@pytest.mark.parametrize(
    ("limits", "minutes"),
    [
        ({"requests_per_minute": 50}, 2),
        ({"requests_per_minute": 50, "tokens_per_minute": 1_000}, 11),
        ({"input_tokens_per_minute": 2_000}, 5),
        ({"output_tokens_per_minute": 100}, 10),
    ],
)
def test_a_service_takes_as_long_as_its_narrowest_limit_asks(limits: dict[str, int], minutes: float) -> None:
    service = OpenAISettings(model="m", limits=limits)  # type: ignore[arg-type]
    assert within_limits(service, 100, 10_000, 1_000).seconds == pytest.approx(60 * minutes)


def test_without_limits_and_for_batches_it_is_not_known() -> None:
    for service in (OpenAISettings(model="m"), OpenAIBatchSettings(model="m")):
        assert within_limits(service, 100, 10_000, 1_000).seconds is None


def test_a_sum_is_not_known_where_a_part_is_not() -> None:
    assert sum_of([Time(1, "a"), Time(2, "b", at_most=True)]) == Time(3, "a; b", at_most=True)
    assert sum_of([Time(1), Time(None, "why")]) == Time(None, "why")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "about 1 s"), (90, "about 90 s"), (720, "about 12 min"), (9_000, "about 2.5 h"), (400_000, "about 5 days")],
)
def test_times_are_told_in_units_that_fit(seconds: float, words: str) -> None:
    assert as_words(Time(seconds)) == words
    assert as_words(Time(None)) == "not known"
