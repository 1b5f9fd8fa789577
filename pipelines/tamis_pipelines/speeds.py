"""How fast this machine is at each kind of step: as earlier steps here were, or as was measured; else nobody knows."""

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
_FAR = 10  # times the work of the step that a speed is of; what such a step took to begin with counts too often then


@dataclass(frozen=True)
class Time:
    """What work would take on this machine.

    Attributes:
        seconds: None where that is not known.
        rests: what it rests on; where it is not known, why.
        at_most: whether it is more likely less than more.
    """

    seconds: float | None
    rests: str = ""
    at_most: bool = False


NOTHING = Time(0.0)


@dataclass(frozen=True)
class Speed:
    """A measured speed.

    Attributes:
        units: of work that were done, as `units_of` counts them.
        seconds: that they took.
        fixed: seconds beside these that any amount of work takes, such as loading a model; 0 where they are not known
            apart.
        where: the step, or the measurement, in words.
    """

    units: float
    seconds: float
    fixed: float
    where: str

    def time(self, units: float) -> Time:
        """For so many units."""
        seconds = self.fixed + units * self.seconds / self.units
        return Time(seconds, self.where, at_most=not self.fixed and units > _FAR * self.units)


class Speeds:
    """Speeds by kind of work.

    Args:
        home: the working folder's `.tamis`. Steps finished there on the same hardware count, those that took up an
            earlier attempt's work do not.
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
        """Whether there is a speed of that kind of work."""
        return key in self._known

    def time(self, key: Key, units: float) -> Time:
        """What `units` of work take by the speed of the step that was nearest to it in size; 0 for none."""
        if units <= 0:
            return NOTHING
        known = self._known.get(key)
        if not known:
            return Time(None, self._failed.get(key, "no such step has run here"))
        return min(known, key=lambda speed: abs(math.log(speed.units / units))).time(units)

    def _note(self, manifest: Manifest) -> None:
        units, execution = units_of(manifest), manifest.execution
        # A rater counts what it was asked, whatever earlier attempts had left in the store.
        if units <= 0 or execution.seconds <= 0 or (execution.resumed and manifest.stage != "rating"):
            return
        seconds, fixed = execution.seconds, 0.0
        trained = manifest.facts.get("training_seconds")
        if isinstance(trained, (int, float)) and 0 < trained < seconds:
            seconds, fixed = float(trained), seconds - float(trained)
        named = f" {manifest.name}" if manifest.name else ""
        where = f"{manifest.stage}{named} here on {execution.started[:10]}, {_told(manifest, units, execution.seconds)}"
        self.add(key_of(manifest.stage, manifest.config, manifest), Speed(units, seconds, fixed, where))


def key_of(stage: str, config: Mapping[str, Any], manifest: Manifest | None = None) -> Key:
    """What kind of work a step does: its stage, and those of its settings, as JSON values, that its speed depends on.

    Of a finished step the `manifest` tells what its settings leave open.
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
        "embedding": ("model", "precision", "max_tokens"),
        "influence": ("model",),
        "finetuning": ("model", "method", "max_tokens"),
        "evaluation": ("model", "suite", "limit", "samples", "backend"),
        "selection": ("strategy",),
    }
    return (stage, *_picked(config, *names.get(stage, ())))


def _picked(config: Mapping[str, Any], *names: str) -> Iterable[Any]:
    return (config.get(name) for name in names)


def units_of(manifest: Manifest) -> float:
    """How much work a finished step was; 0 where it did less than its result shows, or that cannot be told.

    Samples for most stages; pairs of samples for an exact search of neighbours; samples times epochs for training and
    influence; prompts for judging; 1 for each selection, evaluation and report.
    """
    facts, rows = manifest.facts, manifest.rows
    if manifest.stage == "rating":
        return float(facts.get("asked", rows if "backend" not in facts else 0))
    if manifest.stage in ("embedding", "neighbors") and facts.get("taken_over"):
        return 0
    if manifest.stage == "neighbors":
        return pairs(rows) if facts.get("exact") else rows
    if manifest.stage == "influence":
        return rows * float(manifest.config["warmup"]["epochs"])
    if manifest.stage == "finetuning":
        return float(facts.get("samples", 0)) * float(manifest.config["epochs"])
    if manifest.stage == "evaluation":  # of a trained model its settings do not say which one it was
        return 0 if manifest.inputs.get("model") else 1
    if manifest.stage == "judging":
        return 0 if facts.get("reused_answers") or facts.get("reused_verdicts") else rows / 2
    return 1 if manifest.stage in ("selection", "reporting") else rows


def pairs(samples: int) -> float:
    """Comparisons of an exact search of neighbours."""
    return float(samples) * samples


def _told(manifest: Manifest, units: float, seconds: float) -> str:
    what = {"finetuning": "samples of all epochs", "judging": "prompts"}.get(manifest.stage, "samples")
    count = "" if units == 1 else f"{manifest.rows if manifest.stage == 'neighbors' else units:,.0f} {what} in "
    return f"{count}{seconds:,.1f} s"


def within_limits(service: Settings, requests: int, sent: float, answered: float) -> Time:
    """What so many requests take at least by the limits that are set for a service; unknown where there are none.

    Args:
        service: whom they are sent to: settings of a backend, or of a model that is judged.
        requests: how many.
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
        return Time(None, "no limits are set for the service, and it has not been asked here")
    what, (longest, limit) = max(minutes.items(), key=lambda item: item[1][0])
    return Time(60 * longest, f"the limit of {limit:,} {what} a minute")


def sum_of(times: Iterable[Time]) -> Time:
    """All of them, one after another; unknown where one is."""
    listed = list(times)
    unknown = [time for time in listed if time.seconds is None]
    if unknown:
        return unknown[0]
    rests = dict.fromkeys(time.rests for time in listed if time.rests)
    seconds = sum(time.seconds for time in listed if time.seconds is not None)
    return Time(seconds, "; ".join(rests), any(time.at_most for time in listed))


def as_words(time: Time) -> str:
    """As in "about 12 min"; empty for no time at all."""
    if time.seconds is None:
        return "not known"
    if time.seconds == 0:
        return ""
    minutes, hours, days = time.seconds / 60, time.seconds / 3600, time.seconds / 86400
    if days >= 2:
        told = f"{days:.0f} days"
    elif hours >= 2:
        told = f"{hours:.1f} h" if hours < 10 else f"{hours:.0f} h"
    else:
        told = f"{minutes:.0f} min" if minutes >= 2 else f"{max(time.seconds, 1):.0f} s"
    return f"at most about {told}" if time.at_most else f"about {told}"
