"""What the joint model's diagnosis of a rater says; a key that is missing or of another shape says nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tamis.core.reliability import Reliability
from tamis.reporting.numbers import known
from tamis.reporting.statistics import Estimate


@dataclass(frozen=True)
class Effect:
    """One measure of raw scores, of curated ones, and of curated less raw, paired."""

    raw: Estimate
    curated: Estimate
    difference: Estimate


@dataclass(frozen=True)
class HeldOut:
    """How far scores are from human grades that the model had not seen.

    Attributes:
        right: share of scores that are the grade's class, 0..1.
        error: mean absolute error, in classes.
        graded: grades that were used.
        left_out: grades that were not, because their samples were not drawn at random.
        weighted: whether grades came with the probabilities of their samples to be drawn.
        reliability: whether confidences are true; None where nothing is known of them.
    """

    right: Effect
    error: Effect
    graded: int
    left_out: int
    weighted: bool
    reliability: Reliability | None


@dataclass(frozen=True)
class Case:
    """What would hold if `own_share` of the samples had a class of their own; None where it is not said."""

    own_share: float
    plausibility: float
    corrected: float | None
    right_raw: float | None
    right: float | None
    error_raw: float | None
    error: float | None


@dataclass(frozen=True)
class Predicted:
    """How many samples a rater rated and how many scores were predicted, and how far predictions are off."""

    rated: int
    unrated: int
    correlation: float | None
    error: float | None


@dataclass(frozen=True)
class Told:
    """The diagnosis of one rater.

    Attributes:
        explained: False where nothing was corrected because nothing could be told; None where it is not said.
        reasons: why nothing is said, or corrected cautiously; `advice`: what would settle it.
        assume: `cautious` or `clusterable`; empty where it is not said.
        own_share: share of samples whose class is not their neighbourhood's.
        shared_errors: share of samples that models together see as another class than the true one.
        cases: what would hold at one own share or another.
        weights: of the sources of evidence, by name.
        explained_variance: share of the ratings' variance that the regression explains.
        gain: log likelihood of a rating given its neighbours less that without, with its standard error.
    """

    explained: bool | None
    reasons: list[str]
    advice: list[str]
    assume: str
    own_share: Estimate | None
    shared_errors: float | None
    cases: list[Case]
    weights: dict[str, float]
    explained_variance: float | None
    gain: float | None
    gain_error: float | None
    held_out: HeldOut | None
    predicted: Predicted | None
    grades: Mapping[str, Any]

    def expected(self, measure: str) -> float | None:
        """`right_raw`, `right`, `error_raw` or `error` over all cases, each as plausible as it is."""
        told = [(case.plausibility, getattr(case, measure)) for case in self.cases]
        whole = sum(weight for weight, _ in told)
        if whole <= 0 or any(value is None for weight, value in told if weight > 0):
            return None
        return float(sum(weight * value for weight, value in told if weight > 0) / whole)


def read_told(diagnosis: Mapping[str, Any]) -> Told:
    """Read what is there of one rater's diagnosis."""
    explained, assume = diagnosis.get("explained"), diagnosis.get("assume")
    given, without = (_number(diagnosis.get(f"{name}_log_likelihood")) for name in ("predictive", "margin"))
    return Told(
        explained=explained if isinstance(explained, bool) else None,
        reasons=_texts(diagnosis.get("reasons")),
        advice=_texts(diagnosis.get("advice")),
        assume=assume if isinstance(assume, str) else "",
        own_share=_own_share(diagnosis),
        shared_errors=_number(diagnosis.get("shared_errors")),
        cases=[case for entry in _list(diagnosis.get("sensitivity")) if (case := _case(_mapping(entry))) is not None],
        weights={str(name): float(w) for name, w in _mapping(diagnosis.get("weights")).items() if known(w)},
        explained_variance=_number(_mapping(diagnosis.get("regression")).get("explained_variance")),
        gain=None if given is None or without is None else given - without,
        gain_error=_number(diagnosis.get("gain_standard_error")),
        held_out=_held_out(_mapping(diagnosis.get("held_out"))),
        predicted=_predicted(_mapping(diagnosis.get("predicted"))),
        grades=_mapping(diagnosis.get("grades")),
    )


def _own_share(diagnosis: Mapping[str, Any]) -> Estimate | None:
    value = _number(diagnosis.get("own_share"))
    ends = [_number(end) for end in _list(diagnosis.get("own_share_interval"))]
    return None if value is None else _estimate({"value": value, **dict(zip(("low", "high"), ends, strict=False))})


def _case(entry: Mapping[str, Any]) -> Case | None:
    share, plausibility = _number(entry.get("own_share")), _number(entry.get("plausibility"))
    if share is None or plausibility is None:
        return None
    names = ("corrected", "expected_right_raw", "expected_right", "expected_error_raw", "expected_error")
    return Case(share, plausibility, *(_number(entry.get(name)) for name in names))


def _held_out(found: Mapping[str, Any]) -> HeldOut | None:
    right, error = (_effect(_mapping(found.get(name))) for name in ("right", "absolute_error"))
    if right is None or error is None:
        return None
    graded = _number(found.get("graded"))
    return HeldOut(
        right=right,
        error=error,
        graded=int(_number(found.get("n")) or 0) if graded is None else int(graded),
        left_out=int(_number(found.get("left_out")) or 0),
        weighted=found.get("weighted") is True,
        reliability=Reliability.read(_mapping(found.get("reliability"))),
    )


def _effect(found: Mapping[str, Any]) -> Effect | None:
    """None where raw or curated scores have no value: no grade could be used."""
    raw, curated, difference = (_estimate(_mapping(found.get(name))) for name in ("raw", "curated", "difference"))
    return Effect(raw, curated, difference) if np.isfinite([raw.value, curated.value]).all() else None


def _estimate(found: Mapping[str, Any]) -> Estimate:
    value, low, high = (_number(found.get(name)) for name in ("value", "low", "high"))
    return Estimate(*(np.nan if number is None else number for number in (value, low, high)))


def _predicted(found: Mapping[str, Any]) -> Predicted | None:
    rated, unrated = _number(found.get("rated")), _number(found.get("unrated"))
    if rated is None or unrated is None:
        return None
    return Predicted(
        int(rated), int(unrated), _number(found.get("held_out_correlation")), _number(found.get("held_out_error"))
    )


def _number(value: Any) -> float | None:
    return float(value) if known(value) else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _texts(value: Any) -> list[str]:
    """The sentences of a list, without their full stops; one alone may stand without a list."""
    given = [value] if isinstance(value, str) else _list(value)
    return [text.strip().rstrip(".") for text in given if isinstance(text, str) and text.strip()]
