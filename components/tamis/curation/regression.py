"""Prediction of ratings by cross-fitted ridge regression on the embedding, combined with means of near ratings.

Every sample is predicted by a fit that uses neither its own rating nor that of a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.core.errors import InputError
from tamis.curation.neighborhoods import BLOCK, Floats, Neighborhoods

_FOLDS = 5
_PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # times the mean variance of a feature
_NEAR = (3, 10, 32)  # numbers of neighbours in the means
_COVARIATE = 3.0  # scale of covariates relative to embedding dimensions, so that they are hardly penalised
_Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Regression:
    """Predictions of the mean rating.

    Attributes:
        predicted: (n,) predictions from fits without the sample's own rating.
        explained_variance: share of the ratings' variance that they explain, at most 1; below 0 if worse than the mean.
        penalty: penalty of the ridge regression, relative to the features' mean variance; None without embeddings.
        effects: change of the rating, in classes, per standard deviation of each covariate, by its name.
    """

    predicted: _Vector
    explained_variance: float
    penalty: float | None
    effects: dict[str, float]


def predict(
    target: _Vector,
    view: Neighborhoods,
    embeddings: NDArray[Any] | None,
    covariates: Floats | None,
    folds: NDArray[np.intp],
    names: Sequence[str] | None = None,
) -> Regression:
    """Predict `target` (n,), NaN if there is none, from the embedding, covariates and near samples' targets.

    Args:
        target: the values to predict.
        view: the graph with the samples that have a target.
        embeddings: (n, d) vectors, read block by block, or None.
        covariates: (n, c) numbers, or None.
        folds: (n,) numbers 0..4; copies are in the same fold.
        names: names of the covariates.

    Raises:
        InputError: when an embedding is not finite, or the number of names is wrong.
    """
    columns = 0 if covariates is None else covariates.shape[1]
    if names is not None and len(names) != columns:
        raise InputError(
            f"{len(names)} covariate_names for {columns} covariates", allowed="one name for each covariate"
        )
    near = _near_means(target, view)
    if embeddings is None and covariates is None:
        first, penalty, effects = None, None, list[float]()
    else:
        first, penalty, effects = _ridge(target, embeddings, covariates, folds)
    features = near if first is None else np.column_stack([near, first])
    predicted = _least_squares(target, features, folds)
    known = np.isfinite(target)
    error = float(((predicted - target)[known] ** 2).mean())
    variance = float(target[known].var())
    return Regression(
        predicted,
        1 - error / variance if variance > 0 else 0.0,
        penalty,
        dict(zip(names or map(str, range(len(effects))), effects, strict=True)),
    )


def _near_means(target: _Vector, view: Neighborhoods) -> _Vector:
    """(n, len(_NEAR)) mean target of the nearest usable neighbours; the mean of all where there are none."""
    overall = float(np.nanmean(target))
    means = np.full((len(target), len(_NEAR)), overall)
    for rows in view.blocks(np.arange(len(target))):
        samples, _ = view.lists(rows)
        values = np.where(samples >= 0, target[samples], np.nan)
        known = np.isfinite(values)
        sums, counts = np.cumsum(np.where(known, values, 0), axis=1), np.cumsum(known, axis=1)
        for place, k in enumerate(_NEAR):
            last = min(k, samples.shape[1]) - 1
            # The overall mean counts as one more neighbour, which shrinks means over few neighbours.
            means[rows, place] = (sums[:, last] + overall) / (counts[:, last] + 1)
    return means


def _blocks(embeddings: NDArray[Any] | None, covariates: Floats | None, n: int) -> Any:
    """Block by block: rows, and their features as float64."""
    width = 1 / np.sqrt(embeddings.shape[1]) if embeddings is not None else 1.0
    if covariates is not None:
        known = np.isfinite(covariates)
        number = np.maximum(known.sum(0), 1)  # a covariate without known values
        center = np.where(known, covariates, 0).sum(0) / number
        apart = np.where(known, covariates, center) - center
        spread = np.sqrt((apart**2).sum(0) / number)
        scaled = apart / np.where(spread > 1e-9 * np.abs(center), spread, 1) * (_COVARIATE * width)
    for start in range(0, n, BLOCK):
        rows = slice(start, min(start + BLOCK, n))
        parts = [] if embeddings is None else [np.asarray(embeddings[rows], np.float32)]
        if covariates is not None:
            parts.append(scaled[rows].astype(np.float32))
        yield rows, np.hstack(parts)


def _ridge(
    target: _Vector, embeddings: NDArray[Any] | None, covariates: Floats | None, folds: NDArray[np.intp]
) -> tuple[_Vector, float, list[float]]:
    """Out-of-fold predictions by the penalty that predicts best, this penalty, and the covariates' effects."""
    n, known = len(target), np.isfinite(target)
    overall = float(target[known].mean())
    grams: list[Any] = [0.0] * _FOLDS
    moments: list[Any] = [0.0] * _FOLDS
    sums: list[Any] = [0.0] * _FOLDS
    for rows, features in _blocks(embeddings, covariates, n):
        if not np.isfinite(features).all():
            place = rows.start + int((~np.isfinite(features)).any(1).argmax())
            raise InputError(f"the embedding of sample {place} is not finite", allowed="finite numbers")
        y = target[rows] - overall
        for fold in range(_FOLDS):
            chosen = known[rows] & (folds[rows] == fold)
            part = features[chosen]
            grams[fold] = grams[fold] + (part.T @ part).astype(np.float64)
            moments[fold] = moments[fold] + part.T.astype(np.float64) @ y[chosen]
            sums[fold] = sums[fold] + part.sum(0, dtype=np.float64)
    counts = np.array([int((known & (folds == fold)).sum()) for fold in range(_FOLDS)])
    total, gram, moment = sum(sums), sum(grams), sum(moments)
    d = len(total)
    scale = float(np.trace(gram) / d) / max(1, int(known.sum()))
    weights = np.zeros((_FOLDS, len(_PENALTIES), d))
    constants = np.zeros((_FOLDS, len(_PENALTIES)))
    for fold in range(_FOLDS):
        m = max(1, int(counts.sum() - counts[fold]))
        mean = (total - sums[fold]) / m
        shift = float((target[known & (folds != fold)] - overall).mean()) if (known & (folds != fold)).any() else 0.0
        values, vectors = np.linalg.eigh(gram - grams[fold] - m * np.outer(mean, mean))
        inner = vectors.T @ (moment - moments[fold] - m * mean * shift)
        for place, penalty in enumerate(_PENALTIES):
            weights[fold, place] = vectors @ (inner / (np.maximum(values, 0) + penalty * scale * m + 1e-12))
            constants[fold, place] = shift - weights[fold, place] @ mean
    predicted = np.zeros((n, len(_PENALTIES)), np.float32)
    for rows, features in _blocks(embeddings, covariates, n):
        for fold in range(_FOLDS):
            chosen = folds[rows] == fold
            predicted[rows][chosen] = features[chosen] @ weights[fold].T + constants[fold]
    errors = ((predicted[known] - (target[known] - overall)[:, None]) ** 2).mean(0)
    best = int(errors.argmin())
    columns = 0 if covariates is None else covariates.shape[1]
    width = _COVARIATE / np.sqrt(embeddings.shape[1]) if embeddings is not None else _COVARIATE
    effects = (weights[:, best, d - columns :].mean(0) * width).tolist() if columns else []
    return predicted[:, best].astype(np.float64) + overall, _PENALTIES[best], effects


def _least_squares(target: _Vector, features: _Vector, folds: NDArray[np.intp]) -> _Vector:
    """Out-of-fold linear predictions from a few features (n, f)."""
    full = np.column_stack([np.ones(len(target)), features])
    known = np.isfinite(target)
    predicted = np.empty(len(target))
    for fold in range(_FOLDS):
        seen, here = known & (folds != fold), folds == fold
        if not seen.any():
            predicted[here] = float(np.nanmean(target))
            continue
        part = full[seen]
        gram = part.T @ part + 1e-6 * len(part) * np.eye(full.shape[1])
        predicted[here] = full[here] @ np.linalg.solve(gram, part.T @ target[seen])
    return predicted
