"""How fast this machine is at each kind of step, from earlier steps on it or from a measurement."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tamis.core.artifacts import Manifest, manifest_in
from tamis.core.hardware import hardware
from tamis.core.settings import Settings
from tamis.llm.settings import LimitSettings

Key = tuple[Any, ...]
_FAR = (
    10  # beyond this multiple of the measured work, a speed is too low: it includes the time that a step takes to start
)


@dataclass(frozen=True)
class Time:
    """What work would take on this machine.

    Attributes:
        seconds: None if unknown.
        rests: what the time is based on; if it is unknown, why.
        at_most: whether it is rather an upper limit.
    """

    seconds: float | None
    rests: str = ""
    at_most: bool = False


NOTHING = Time(0.0)


@dataclass(frozen=True)
class Speed:
    """A measured speed.

    Attributes:
        units: how much work was done, as `units_of` counts it.
        seconds: how long it took.
        fixed: further seconds that any amount of work takes, such as loading a model; 0 if they are not known
            separately.
        where: the step or the measurement, in words.
    """

    units: float
    seconds: float
    fixed: float
    where: str

    def time(self, units: float) -> Time:
        """Return the time for this much work."""
        seconds = self.fixed + units * self.seconds / self.units
        return Time(seconds, self.where, at_most=not self.fixed and units > _FAR * self.units)


class Speeds:
    """Speeds by kind of work.

    Args:
        home: the working folder's `.tamis`. Steps that were finished there on the same hardware count, except those
            that continued an earlier attempt.
    """

    def __init__(self, home: Path) -> None:
        self._known: dict[Key, list[Speed]] = {}
        self._failed: dict[Key, str] = {}
        for file in sorted((home / "artifacts").glob("*/manifest.json")):
            manifest = manifest_in(file.parent)
            if manifest is not None and manifest.execution.machine == hardware():
                self._note(manifest)

    def add(self, key: Key, speed: Speed) -> None:
        """Note a measured speed."""
        self._known.setdefault(key, []).append(speed)

    def failed(self, key: Key, why: str) -> None:
        """Note why a speed could not be measured."""
        self._failed[key] = why

    def knows(self, key: Key) -> bool:
        """Return whether the speed of this kind of work is known."""
        return key in self._known

    def time(self, key: Key, units: float) -> Time:
        """Return the time for `units` of work, by the speed of the known step of most similar size; 0 for no work."""
        if units <= 0:
            return NOTHING
        known = self._known.get(key)
        if not known:
            return Time(None, self._failed.get(key, "no such step has run in this work_dir"))
        return min(known, key=lambda speed: abs(math.log(speed.units / units))).time(units)

    def _note(self, manifest: Manifest) -> None:
        units, execution = units_of(manifest), manifest.execution
        # A rater counts only what it was asked in this attempt, so a continued one counts too.
        if units <= 0 or execution.seconds <= 0 or (execution.resumed and manifest.stage != "rating"):
            return
        seconds, fixed = execution.seconds, 0.0
        trained = manifest.facts.get("training_seconds")
        if isinstance(trained, (int, float)) and 0 < trained < seconds:
            seconds, fixed = float(trained), seconds - float(trained)
        named = f" {manifest.name}" if manifest.name else ""
        where = f"{manifest.stage}{named} on {execution.started[:10]}, {_work(manifest, units, execution.seconds)}"
        self.add(key_of(manifest.stage, manifest.config, manifest), Speed(units, seconds, fixed, where))


def key_of(stage: str, config: Mapping[str, Any], manifest: Manifest | None = None) -> Key:
    """Return the kind of work of a step: its stage, and the settings (JSON values) that its speed depends on.

    For a finished step, `manifest` decides what the settings leave open.
    """
    if stage == "rating":
        backend = config["backend"]
        return (stage, *_picked(backend, "kind", "model", "precision", "structured"))
    if stage == "neighbors":
        method = config["method"]
        return (stage, method if manifest is None else "exact" if manifest.facts.get("exact") else "approximate")
    if stage == "scoring":
        measure = {name: value for name, value in config["measure"].items() if name != "max_tokens"}
        return (stage, *(str(item) for item in sorted(measure.items())))
    if stage == "judging":
        backend, answers = config["judge"]["backend"], config["answers"]
        return (stage, *_picked(backend, "kind", "model"), *_picked(answers, "engine", "max_new_tokens"))
    names = {
        "nearcopies": ("text", "permutations"),
        "embedding": ("model", "precision", "max_tokens"),
        "influence": ("model",),
        "finetuning": ("model", "method", "max_tokens"),
        "evaluation": ("model", "suite", "limit", "samples", "backend"),
        "selection": ("strategy",),
        "signals": ("signals", "tokenizer"),
    }
    return (stage, *_picked(config, *names.get(stage, ())))


def _picked(config: Mapping[str, Any], *names: str) -> Iterable[Any]:
    return (config.get(name) for name in names)


def units_of(manifest: Manifest) -> float:
    """Return how much work a finished step did; 0 if it did less than its result shows, or if that is unknown.

    The unit is samples for most stages, pairs of samples for an exact neighbour search, samples times epochs for
    training and influence, and prompts for judging. A selection, an evaluation and a report count 1.
    """
    facts, rows = manifest.facts, manifest.rows
    if manifest.stage == "rating":
        return float(facts.get("asked", rows if "backend" not in facts else 0))
    if manifest.stage == "nearcopies":
        counted = facts["near_copies"]
        return 0 if counted["taken_over"] else rows + counted["dropped"]
    if manifest.stage in ("embedding", "neighbors") and facts.get("taken_over"):
        return 0
    if manifest.stage == "neighbors":
        return pairs(rows) if facts.get("exact") else rows
    if manifest.stage == "influence":
        return rows * float(manifest.config["warmup"]["epochs"])
    if manifest.stage == "finetuning":
        return float(facts.get("samples", 0)) * float(manifest.config["epochs"])
    if manifest.stage == "evaluation":  # the settings do not say which trained model it was
        return 0 if manifest.inputs.get("model") else 1
    if manifest.stage == "judging":
        return 0 if facts.get("reused_answers") or facts.get("reused_verdicts") else rows / 2
    return 1 if manifest.stage in ("selection", "reporting") else rows


def pairs(samples: int) -> float:
    """Return the number of comparisons in an exact neighbour search."""
    return float(samples) * samples


def _work(manifest: Manifest, units: float, seconds: float) -> str:
    what = {"finetuning": "samples of all epochs", "judging": "prompts"}.get(manifest.stage, "samples")
    count = "" if units == 1 else f"{manifest.rows if manifest.stage == 'neighbors' else units:,.0f} {what} in "
    return f"{count}{seconds:,.1f} s"


def within_limits(service: Settings, requests: int, sent: float, answered: float) -> Time:
    """Return the shortest time for requests to a service under its limits; unknown if it has none.

    Args:
        service: settings of the service: a backend, or a judged model.
        requests: number of requests.
        sent: tokens of all prompts.
        answered: tokens of all answers.
    """
    if getattr(service, "JOURNALED", False):
        return Time(None, "batches are answered within a day")
    limits = getattr(service, "limits", LimitSettings())
    amounts = {
        "requests": (requests, limits.requests_per_minute),
        "tokens": (sent + answered, limits.tokens_per_minute),
        "tokens of prompts": (sent, limits.input_tokens_per_minute),
        "tokens of answers": (answered, limits.output_tokens_per_minute),
    }
    minutes = {what: (amount / limit, limit) for what, (amount, limit) in amounts.items() if limit is not None}
    if not minutes:
        return Time(None, "no limits are set for the service, and it has not been used on this machine")
    what, (longest, limit) = max(minutes.items(), key=lambda item: item[1][0])
    return Time(60 * longest, f"the limit of {limit:,} {what} per minute")


def sum_of(times: Iterable[Time]) -> Time:
    """Return the sum of times; unknown if one of them is."""
    listed = list(times)
    unknown = [time for time in listed if time.seconds is None]
    if unknown:
        return unknown[0]
    rests = dict.fromkeys(time.rests for time in listed if time.rests)
    seconds = sum(time.seconds for time in listed if time.seconds is not None)
    return Time(seconds, "; ".join(rests), any(time.at_most for time in listed))


def as_words(time: Time) -> str:
    """Return a time in words, such as "about 12 min"; empty for no time."""
    if time.seconds is None:
        return "not known"
    if time.seconds == 0:
        return ""
    minutes, hours, days = time.seconds / 60, time.seconds / 3600, time.seconds / 86400
    if days >= 2:
        text = f"{days:.0f} days"
    elif hours >= 2:
        text = f"{hours:.1f} h" if hours < 10 else f"{hours:.0f} h"
    else:
        text = f"{minutes:.0f} min" if minutes >= 2 else f"{max(time.seconds, 1):.0f} s"
    return f"at most about {text}" if time.at_most else f"about {text}"
