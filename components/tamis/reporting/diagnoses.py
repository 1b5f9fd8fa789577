"""The joint model's diagnosis of a rater. A key that is missing or has an unexpected value counts as unknown."""

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
    """A measure of raw scores, of curated scores, and of the paired difference, curated minus raw."""

    raw: Estimate
    curated: Estimate
    difference: Estimate


@dataclass(frozen=True)
class HeldOut:
    """How far scores are from held-out human grades.

    Attributes:
        right: share of scores that equal the grade's class, 0..1.
        error: mean absolute error, in classes.
        graded: number of grades that were used.
        left_out: number of grades that were not, because their samples were not drawn at random.
        weighted: whether the grades have weights, from the probability that their samples were drawn.
        reliability: calibration of the confidences; None if unknown.
    """

    right: Effect
    error: Effect
    graded: int
    left_out: int
    weighted: bool
    reliability: Reliability | None


@dataclass(frozen=True)
class Case:
    """The results if `own_share` of the samples had a class of their own; None for unknown values."""

    own_share: float
    plausibility: float
    corrected: float | None
    right_raw: float | None
    right: float | None
    error_raw: float | None
    error: float | None


@dataclass(frozen=True)
class Predicted:
    """Number of rated samples and of predicted scores, and how good the predictions are."""

    rated: int
    unrated: int
    correlation: float | None
    error: float | None


@dataclass(frozen=True)
class Findings:
    """The model's findings about one rater.

    Attributes:
        explained: False if nothing was corrected because the data cannot tell errors from differences; None if unknown.
        reasons: why nothing was corrected, or only cautiously; `advice`: what would help.
        assume: `cautious` or `clusterable`; empty if unknown.
        own_share: share of samples whose class is not that of their neighbourhood.
        shared_errors: share of samples in which all models see a class that is not the true one.
        cases: the results at the possible own shares.
        weights: weights of the sources of evidence, by name.
        explained_variance: share of the ratings' variance that the regression explains.
        gain: log likelihood of a rating given its neighbours minus that without, with its standard error.
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
        """`right_raw`, `right`, `error_raw` or `error` as the mean over all cases, weighted by plausibility."""
        weighted = [(case.plausibility, getattr(case, measure)) for case in self.cases]
        whole = sum(weight for weight, _ in weighted)
        if whole <= 0 or any(value is None for weight, value in weighted if weight > 0):
            return None
        return float(sum(weight * value for weight, value in weighted if weight > 0) / whole)


def read_findings(diagnosis: Mapping[str, Any]) -> Findings:
    """Read the known parts of one rater's diagnosis."""
    explained, assume = diagnosis.get("explained"), diagnosis.get("assume")
    given, without = (_number(diagnosis.get(f"{name}_log_likelihood")) for name in ("predictive", "margin"))
    return Findings(
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
    """None if raw or curated scores have no value, because no grade could be used."""
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
    """The sentences of a list, or of a single text, without their full stops."""
    given = [value] if isinstance(value, str) else _list(value)
    return [text.strip().rstrip(".") for text in given if isinstance(text, str) and text.strip()]
