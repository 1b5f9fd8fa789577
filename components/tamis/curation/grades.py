"""Human grades of some of the samples, read, checked and aligned with the neighbour graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError, SettingsError
from tamis.core.ids import Keys, positions
from tamis.core.scales import Scale, in_lower_half, seem_on_another
from tamis.core.storage import fingerprint
from tamis.curation.agreement import agreement
from tamis.curation.classes import UNRATED, to_classes
from tamis.curation.grade_files import DRAWN, NOT_STATED, Found, any_id, in_files, in_pool, own_ids_of
from tamis.curation.settings import GradesSettings

_DIGITS = 9  # of a rescaled mean: 5.4999999999 is 5.5


@dataclass(frozen=True)
class Grades:
    """Human grades in the graph's order.

    Attributes:
        classes: (n,) int8 class of the mean grade, -1 if there is none.
        weights: (n,) float64, number of samples that each represents: 1 / the probability that it was drawn for
            grading; NaN if there is no grade, or the sample was not drawn at random.
        weighted: whether it is known how the samples were chosen; if not, all count as drawn at random.
        equal: number of samples that were drawn at random with an unknown probability; they get equal weights.
        unknown: number of grades of samples that the graph lacks.
        empty: number of rows without a grade.
        agreement: agreement of the graders, from `agreement`.
        warnings: doubts about the grades, as sentences.
    """

    classes: NDArray[np.int8]
    weights: NDArray[np.float64]
    weighted: bool
    equal: int
    unknown: int
    empty: int
    agreement: dict[str, Any]
    warnings: list[str] = field(default_factory=list)

    @property
    def graded(self) -> int:
        """Samples of the graph that have a grade."""
        return int((self.classes != UNRATED).sum())

    @property
    def chosen(self) -> dict[str, int]:
        """How many of them were drawn at random, were chosen otherwise, or count as drawn because it is unknown."""
        drawn = int(np.isfinite(self.weights).sum())
        if not self.weighted:
            return {"drawn_at_random": 0, "chosen_otherwise": 0, "taken_as_drawn": self.graded}
        return {"drawn_at_random": drawn, "chosen_otherwise": self.graded - drawn, "taken_as_drawn": 0}


def fingerprints(settings: GradesSettings) -> dict[str, str]:
    """A fingerprint of the content of each file of grades; the step depends on these besides its inputs.

    Raises:
        StorageError: when a file does not exist.
    """
    return {f"grades {number}": fingerprint(path) for number, path in enumerate(settings.paths, 1)}


def read_grades(
    settings: GradesSettings,
    ids: Keys,
    *,
    lowest: int,
    highest: int,
    scratch: Path,
    pool: Artifact | None = None,
) -> Grades:
    """The grades of the samples `ids` (n,).

    A sample's grade is the mean of its graders' grades. It is mapped from the settings' scale to 1..10 and then becomes
    a class like a rating (`classes.to_classes`: rounded half up, from `lowest` to `highest`).

    Args:
        settings: where the grades are, and their scale.
        ids: the graph's samples.
        lowest: ratings up to this one are class 0.
        highest: ratings from this one on are the top class.
        scratch: folder for downloaded files.
        pool: the pool, which `settings.column` and `settings.key` need.

    Raises:
        SettingsError: when `settings.column` or `settings.key` is set and there is no `pool`.
        InputError: when too few grades belong to the graph's samples (`settings.min_matched_share`), a grade is not a
            number or is outside the scale, no scale is set and the grades do not look like 1 to 10, a weight is below
            1, a grader graded a sample twice, no sample has a grade, or the graph has none of the graded samples.
        StorageError: when a file cannot be read.
    """
    found = _found(settings, scratch, pool)
    scale, warnings = _checked(found, settings)
    samples, places = np.unique(found.keys, return_inverse=True)
    _refuse_repeats(found, places)
    rows = positions(samples, ids)
    _refuse_mismatch(found, rows, len(ids), settings)
    unknown = int((rows < 0)[places].sum()) + found.unknown
    if unknown:
        source = ", ".join(found.places)
        warnings.append(f"{source}: {unknown} grades are of samples that the neighbour graph does not have")
    values = scale.stretched(found.values)
    means = np.bincount(places, weights=values) / np.bincount(places)
    weights, equal = _aligned_weights(found, places, rows, len(ids))
    classes = partial(_classes, lowest=lowest, highest=highest)
    return Grades(
        classes=classes(_aligned(means, rows, len(ids))),
        weights=weights,
        weighted=bool(np.isfinite(found.weights[rows[places] >= 0]).any() or (found.chosen != NOT_STATED).any()),
        equal=equal,
        unknown=unknown,
        empty=found.empty,
        agreement=agreement(places, found.grader, values, classes(values)),
        warnings=warnings,
    )


def _found(settings: GradesSettings, scratch: Path, pool: Artifact | None) -> Found:
    """The grades in the files or in the pool's field.

    Raises:
        SettingsError: when a field of the pool is needed and there is no pool.
        InputError: as `in_files` and `in_pool`.
    """
    if settings.pool_field is not None and pool is None:
        name = "field" if settings.column is None else "column"
        raise SettingsError(
            f"grades.{name} is '{settings.pool_field}', a field of the pool, but no pool was given",
            action="give the pool as well, or use a file of grades with the pool's ids (grades.path)",
        )
    if settings.column is None:
        return in_files(settings, scratch, own_ids_of(settings, pool))
    assert pool is not None
    return in_pool(pool, settings.column)


def _refuse_mismatch(found: Found, rows: NDArray[np.int64], samples: int, settings: GradesSettings) -> None:
    """Refuse grades of other samples; `rows` are the graded samples' places in the graph, -1 for those it lacks."""
    source, known = ", ".join(found.places), int((rows >= 0).sum())
    graded = len(rows) + found.unknown
    if not known:
        raise InputError(
            f"{source}: none of the {len(rows)} samples with a grade is in the neighbour graph; the first is "
            f"{found.sample(0)}",
            allowed="ids from the pool's column `id`",
            action="use grades of this pool's samples",
        )
    if max(known / graded, known / samples) < settings.min_matched_share:
        raise InputError(
            f"{source}: {known:,} of {graded:,} graded samples are among the {samples:,} of the neighbour graph",
            allowed=f"at least {settings.min_matched_share:.0%} of the graded samples, or of the graph's "
            "(grades.min_matched_share)",
            action="use grades of this pool's samples, or lower the limit",
        )


def _aligned(values: NDArray[Any], rows: NDArray[np.int64], samples: int) -> NDArray[np.float64]:
    """(n,) the graded samples' `values` at their `rows` of the graph; NaN elsewhere."""
    aligned = np.full(samples, np.nan)
    known = rows >= 0
    aligned[rows[known]] = values[known]
    return aligned


def _aligned_weights(
    found: Found, places: NDArray[np.intp], rows: NDArray[np.int64], samples: int
) -> tuple[NDArray[np.float64], int]:
    """(n,) weights in the graph's order, and how many samples were drawn at random with an unknown probability.

    These samples share a weight: the graph's samples divided by the random ones.
    """
    weights = _aligned(_least(found.weights, places), rows, samples)
    drawn = _aligned(np.bincount(places, found.chosen == DRAWN), rows, samples) > 0
    equal = drawn & np.isnan(weights)
    weights[equal] = max(1.0, samples / max(int((drawn | np.isfinite(weights)).sum()), 1))
    return weights, int(equal.sum())


def check_files(settings: GradesSettings, scratch: Path) -> int:
    """Read the files of grades as a run does, as far as possible without a pool.

    Columns, the form of ids, the scale and repeated grades are checked. With `settings.key`, it is not checked whether
    the pool has the ids.

    Returns:
        The number of grades.

    Raises:
        InputError: as `read_grades`.
        StorageError: when a file cannot be read.
    """
    found = in_files(settings, scratch, None if settings.key is None else any_id)
    _checked(found, settings)
    _refuse_repeats(found, np.unique(found.keys, return_inverse=True)[1])
    return len(found.keys)


def _checked(found: Found, settings: GradesSettings) -> tuple[Scale, list[str]]:
    """The scale that the grades are on, and doubts about it.

    Raises:
        InputError: when there is no grade, or one is off the scale.
    """
    source = ", ".join(found.places)
    if not len(found.keys):
        raise InputError(f"{source}: no sample has a grade", action="fill in the grades, or omit curation.grades")
    scale = settings.scale or Scale()
    _refuse_outside(found, scale)
    return scale, _question_scale(found, settings.scale, source)


def _question_scale(found: Found, declared: Scale | None, source: str) -> list[str]:
    """A warning if the grades use only the lower half of their scale.

    Raises:
        InputError: when no scale is declared and the grades do not look like 1 to 10.
    """
    lowest, highest, number = float(found.values.min()), float(found.values.max()), len(found.values)
    within = f"{source}: the {number} grades go from {lowest:g} to {highest:g}"
    if declared is None and seem_on_another(lowest, highest, number):
        raise InputError(
            f"{within}, which does not look like a scale from 1 to 10",
            allowed="a scale, for example scale: {lowest: 1, highest: 5}; use {lowest: 1, highest: 10} if it is "
            "that one",
            action="set grades.scale",
        )
    scale = declared or Scale()
    if in_lower_half(highest, number, scale):
        return [f"{within}, the scale from {scale}: is that the scale of these grades?"]
    return []


def _refuse_outside(found: Found, scale: Scale) -> None:
    bad = np.flatnonzero([not scale.has(value) for value in found.values.tolist()])
    if len(bad):
        first = int(bad[0])
        raise InputError(
            f"{found.where(first)}: the sample {found.sample(first)} has the grade {found.values[first]:g}; "
            f"{len(bad)} of {len(found.values)} grades are outside the scale",
            allowed=f"{scale}, or empty if there is no grade",
            action="correct the grades, or set grades.scale to their scale",
        )


def _refuse_repeats(found: Found, samples: NDArray[np.intp]) -> None:
    pairs = samples.astype(np.int64) * len(found.graders) + found.grader
    first, counts = np.unique(pairs, return_index=True, return_counts=True)[1:]
    if (counts > 1).any():
        one, two = np.flatnonzero(pairs == pairs[first[counts > 1].min()])[:2].tolist()
        name = found.graders[found.grader[one]]
        who = f"the grader '{name}'" if name else "a grader without a name (the column 'grader' is empty)"
        raise InputError(
            f"{who} graded the sample {found.sample(one)} more than once: {found.values[one]:g} in {found.where(one)}, "
            f"{found.values[two]:g} in {found.where(two)}; {int((counts > 1).sum())} samples have such repeated grades",
            allowed="one grade by each grader for each sample",
            action="keep one of the rows, or give the graders different names in the column 'grader'",
        )


def _least(weights: NDArray[np.float64], places: NDArray[np.intp]) -> NDArray[np.float64]:
    """The lowest weight among the grades of each sample; NaN if there is none."""
    least = np.full(int(places.max()) + 1, np.inf)
    np.fmin.at(least, places, weights)
    return np.where(np.isfinite(least), least, np.nan)


def _classes(grades: NDArray[np.float64], *, lowest: int, highest: int) -> NDArray[np.int8]:
    return to_classes(np.round(grades, _DIGITS), lowest=lowest, highest=highest)
