"""The agreement of human graders with each other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def agreement(
    samples: NDArray[np.integer[Any]],
    graders: NDArray[np.integer[Any]],
    grades: NDArray[np.float64],
    classes: NDArray[np.int8],
) -> dict[str, Any]:
    """The agreement of graders on the samples that several of them graded.

    Args:
        samples: (m,) codes 0.. of the samples of m grades.
        graders: (m,) codes of the graders.
        grades: (m,) the grades.
        classes: (m,) the class of each.

    Returns:
        JSON values: numbers of `graders`, `samples`, `samples_with_several` and `pairs` (of grades of one sample);
        the share of pairs in the same class (`equal_class`) and at most one class apart (`within_one`); and
        `krippendorff_alpha` of the grades with the interval metric, 1 - observed / expected disagreement (Krippendorff,
        "Computing Krippendorff's Alpha-Reliability", 2011): 1 is full agreement, 0 is agreement by chance. The last
        three are None if no sample has several grades; alpha is also None if all grades are equal.
    """
    counts = np.bincount(samples)
    several = counts[samples] >= 2
    result: dict[str, Any] = {
        "graders": len(np.unique(graders)),
        "samples": int((counts > 0).sum()),
        "samples_with_several": int((counts >= 2).sum()),
        "pairs": int((counts * (counts - 1) // 2).sum()),
        "equal_class": None,
        "within_one": None,
        "krippendorff_alpha": None,
    }
    if not several.any():
        return result
    places = np.unique(samples[several], return_inverse=True)[1]
    sizes = np.bincount(places)
    tally = np.zeros((len(sizes), int(classes.max()) + 1), np.int64)
    np.add.at(tally, (places, classes[several]), 1)
    result["equal_class"] = float((tally * (tally - 1) // 2).sum() / result["pairs"])
    near = (tally[:, 1:] * tally[:, :-1]).sum() / result["pairs"]
    result["within_one"] = result["equal_class"] + float(near)
    values = grades[several] - grades[several].mean()
    # The sum of (a - b)^2 over ordered pairs of m values is 2 (m sum a^2 - (sum a)^2).
    sums, squares = np.bincount(places, weights=values), np.bincount(places, weights=values**2)
    observed = (2 * (sizes * squares - sums**2) / (sizes - 1)).sum() / len(values)
    expected = 2 * (len(values) * (values**2).sum() - values.sum() ** 2) / (len(values) * (len(values) - 1))
    if expected > 1e-12:
        result["krippendorff_alpha"] = float(1 - observed / expected)
    return result
