"""Names of latent classes, and whether the data can distinguish them.

The ratings of neighbours determine the rows of T only up to their order: they do not say which latent class is the true
score 3. Classes are named so that most ratings are right; if that is doubtful, there is a warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
FEW_SAMPLES = 50  # with fewer expected samples of a true class, its row of T is little more than a guess


def name_classes(T: Matrix, p: Matrix) -> NDArray[np.intp]:
    """Order of the latent classes under which the joint P(true, rated) has the largest trace (Hungarian method).

    Returns:
        (K,) `order`: latent class order[i] is the true score i; T[order] and p[order] are named.
    """
    from scipy.optimize import linear_sum_assignment

    latent, named = linear_sum_assignment(p[:, None] * T, maximize=True)
    order = np.empty(len(p), np.intp)
    order[named] = latent
    return order


@dataclass(frozen=True)
class Identifiability:
    """Whether T can be trusted.

    Attributes:
        renamed: latent classes were given other names than the ones they started from.
        dominant: (K,) whether a true class is rated as itself more often than as any other class.
        samples: (K,) expected number of rated samples of each true class.
        smallest_singular_value: of T; near 0 if a mix of true classes is rated like another mix.
        warnings: the doubts as sentences.
    """

    renamed: bool
    dominant: list[bool]
    samples: list[float]
    smallest_singular_value: float
    warnings: list[str]


def identifiability(
    T: Matrix, p: Matrix, rated: int, renamed: bool, absent: list[int], unreachable: Sequence[int] = ()
) -> Identifiability:
    """Check a named T.

    Args:
        T: (K, K) rows true, columns rated.
        p: (K,) prior.
        rated: samples with a rating.
        renamed: whether naming changed the order of the classes.
        absent: classes without ratings.
        unreachable: classes for which the rater's scale has no rating; these cause no warning.
    """
    present = [c for c in range(len(p)) if c not in absent]
    samples = p * rated
    others = T - 2 * np.eye(len(p))
    dominant = np.diag(T) > others.max(1) + 1e-9
    singular = float(np.linalg.svd(T[np.ix_(present, present)], compute_uv=False)[-1]) if present else 0.0
    warnings = []
    if missed := [c for c in absent if c not in unreachable]:
        warnings.append(
            f"no sample is rated {_list(missed)}: such a true score cannot be found, and its row of T cannot be "
            "estimated"
        )
    if renamed:
        warnings.append(
            "the estimated classes had to be reordered: the rater may confuse them so much that their order is "
            "uncertain"
        )
    weak = [c for c in present if not dominant[c]]
    if weak:
        warnings.append(
            f"this rater does not distinguish the true score{'s' if len(weak) > 1 else ''} {_list(weak, 'and')} from "
            "others: such samples get another score at least as often, so this part of T is uncertain"
        )
    few = [c for c in present if samples[c] < FEW_SAMPLES]
    if few:
        warnings.append(
            f"fewer than {FEW_SAMPLES} samples seem to have the true score {_list(few)}: its row of T is uncertain"
        )
    if len(present) > 1 and singular < 0.05:
        warnings.append("T is nearly singular: several true scores are rated alike and cannot be distinguished")
    return Identifiability(renamed, dominant.tolist(), np.round(samples, 1).tolist(), singular, warnings)


def _list(classes: list[int], before_last: str = "or") -> str:
    *head, last = map(str, classes)
    return f"{', '.join(head)} {before_last} {last}" if head else last
