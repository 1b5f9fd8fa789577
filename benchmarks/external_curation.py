"""What users would pick instead of Tamis' curation: each method on a pool saved as .npz.

Runs in the environment of benchmarks/external.txt, which `curation_grid.py` makes: Tamis is not needed here. Reads a
path a line from standard input and answers each with a line of JSON: for every method its curated scores and the
seconds it took, or why it failed.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
from cleanlab.filter import find_label_issues
from cleanlab.multiannotator import get_label_quality_multiannotator, get_majority_vote_label
from crowdkit.aggregation import GLAD, MACE, DawidSkene
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict

NEIGHBOURS, FOLDS, CLASSES = 10, 5, 6
OWN, ALPHA = 0.35, 3.0  # the weight of a sample's own rating beside the regression's, and the regression's penalty


def halves_up(values: np.ndarray) -> np.ndarray:
    return np.clip(np.floor(values + 0.5), 0, CLASSES - 1).astype(int)


@dataclass(frozen=True)
class Rated:
    """A pool without its truth: ratings (n, R) classes 0..5, vectors (n, d), indices (n, k) nearest first."""

    ratings: np.ndarray
    vectors: np.ndarray
    indices: np.ndarray

    @property
    def several(self) -> bool:
        return self.ratings.shape[1] > 1

    @cached_property
    def mean(self) -> np.ndarray:
        return halves_up(self.ratings.mean(1))

    @cached_property
    def majority(self) -> np.ndarray:
        """What probabilities for CROWDLAB are trained on, as its authors do."""
        return np.asarray(get_majority_vote_label(self.ratings, verbose=False)) if self.several else self.mean

    @cached_property
    def table(self) -> pd.DataFrame:
        task, worker = np.indices(self.ratings.shape)
        columns = {"task": task, "worker": worker, "label": self.ratings}
        return pd.DataFrame({name: values.ravel() for name, values in columns.items()})

    def near_probabilities(self, labels: np.ndarray) -> np.ndarray:
        """Shares of the labels among the nearest; no sample counts itself."""
        near = labels[self.indices[:, :NEIGHBOURS]]
        return (near[:, :, None] == np.arange(CLASSES)).mean(1)

    def linear_probabilities(self, labels: np.ndarray) -> np.ndarray:
        """Logistic regression on the vectors, each sample by the folds that it is not in."""
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
        found = np.zeros((len(labels), CLASSES))
        model = LogisticRegression(max_iter=1000)
        found[:, np.unique(labels)] = cross_val_predict(model, self.vectors, labels, cv=folds, method="predict_proba")
        return found


def vote(pool: Rated) -> np.ndarray:
    """The most frequent of all ratings of a sample and its nearest; among equals the one nearer to its own mean."""
    rated = np.concatenate([pool.ratings[:, None], pool.ratings[pool.indices[:, :NEIGHBOURS]]], 1)
    counts = (rated.reshape(len(rated), -1, 1) == np.arange(CLASSES)).sum(1)
    far = np.abs(np.arange(CLASSES) - pool.ratings.mean(1, keepdims=True))
    return np.argmax(counts - far / CLASSES, axis=1)


def ridge(pool: Rated, *, spread_kept: bool = False) -> np.ndarray:
    """The weighted mean of the raters' mean and what a regression on the vectors says of it, out of fold.

    That lies closer together than the ratings do; with `spread_kept` it is spread as they are.
    """
    mean = pool.ratings.mean(1)
    folds = KFold(FOLDS, shuffle=True, random_state=0)
    said = cross_val_predict(Ridge(alpha=ALPHA), pool.vectors, mean, cv=folds)
    mixed = (OWN * mean + said) / (OWN + 1)
    if spread_kept:
        mixed = mean.mean() + (mixed - mixed.mean()) * mean.std() / mixed.std()
    return halves_up(mixed)


def without_issues(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Labels that cleanlab flags become the most probable class."""
    known = np.unique(labels)  # cleanlab wants every class to have a label
    among = probabilities[:, known]
    total = among.sum(1, keepdims=True)
    among = np.where(total > 0, among / np.maximum(total, 1e-12), 1 / len(known))
    issues = find_label_issues(np.searchsorted(known, labels), among, n_jobs=1)
    return np.where(issues, known[among.argmax(1)], labels)


def crowdlab(pool: Rated, probabilities: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    found = get_label_quality_multiannotator(pool.ratings, probabilities(pool.majority), verbose=False)
    return found["label_quality"]["consensus_label"].to_numpy()


def crowd(pool: Rated, model: Any) -> np.ndarray:
    return model.fit_predict(pool.table).reindex(range(len(pool.ratings))).to_numpy()


METHODS: dict[str, Callable[[Rated], np.ndarray]] = {
    "mean of raters": lambda pool: pool.mean,
    "vote of neighbours": vote,
    "cleanlab, kNN": lambda pool: without_issues(pool.mean, pool.near_probabilities(pool.mean)),
    "cleanlab, logistic": lambda pool: without_issues(pool.mean, pool.linear_probabilities(pool.mean)),
    "ridge": ridge,
    "ridge, spread kept": partial(ridge, spread_kept=True),
}
OF_SEVERAL: dict[str, Callable[[Rated], np.ndarray]] = {
    "CROWDLAB, kNN": lambda pool: crowdlab(pool, pool.near_probabilities),
    "CROWDLAB, logistic": lambda pool: crowdlab(pool, pool.linear_probabilities),
    "Dawid-Skene": lambda pool: crowd(pool, DawidSkene(n_iter=100)),
    "MACE": lambda pool: crowd(pool, MACE(n_restarts=2, random_state=0)),  # 10, the default, gave the same
    "GLAD": lambda pool: crowd(pool, GLAD()),
}


def answers(pool: Rated) -> dict[str, dict[str, Any]]:
    """Of every method: `score` and `seconds`, or `failed` with the reason."""
    found: dict[str, dict[str, Any]] = {}
    for name, method in (METHODS | OF_SEVERAL if pool.several else METHODS).items():
        start = time.perf_counter()
        try:
            score = np.asarray(method(pool)).astype(int)
            found[name] = {"score": score.tolist(), "seconds": time.perf_counter() - start}
        except Exception as error:  # of libraries that are measured, not used: shown in the results
            found[name] = {"failed": f"{type(error).__name__}: {error}"[:300]}
    return found


def main() -> None:
    warnings.simplefilter("ignore")
    # The libraries print to standard output, which is for the answers.
    with os.fdopen(os.dup(1), "w") as out, contextlib.redirect_stdout(sys.stderr):
        os.dup2(2, 1)
        for line in sys.stdin:
            with np.load(line.strip()) as file:
                pool = Rated(file["ratings"].astype(int), file["vectors"].astype(float), file["indices"])
            print(json.dumps(answers(pool)), file=out, flush=True)


if __name__ == "__main__":
    main()
