"""The curation stage: makes curated scores and a diagnosis of each rater from ratings and neighbours."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact, Manifest
from tamis.core.errors import InputError, SettingsError
from tamis.core.ids import Keys, positions, read_keys
from tamis.core.scales import Scale, classes_in_words, scale_of
from tamis.core.steps import Input, Step, Uri, run_step
from tamis.core.tables import POSSIBLE
from tamis.curation import honest, model, raters, rounds, sources
from tamis.curation.arrays import Arrays
from tamis.curation.classes import UNRATED
from tamis.curation.diversity import diversity_scores
from tamis.curation.examples import write_corrections
from tamis.curation.explaining import ADD_A_RATER
from tamis.curation.grades import Grades, fingerprints, read_grades
from tamis.curation.neighborhoods import Floats, Ints
from tamis.curation.pool import LENGTHS, read_pool
from tamis.curation.ratings import Ratings, read_all
from tamis.curation.result import Curated
from tamis.curation.settings import COMBINED, CurationSettings
from tamis.curation.writing import write_results

log = logging.getLogger(__name__)


def run(
    settings: CurationSettings,
    *,
    ratings: Sequence[Uri],
    neighbors: Uri,
    pool: Uri | None = None,
    embeddings: Uri | None = None,
    out: Uri,
) -> Manifest:
    """Curate the scores of every rater.

    The artifact at `out` holds the table of all raters, `diagnosis.json` and `corrections.parquet`. In `exact` mode,
    `embeddings` and the text lengths of `pool` are used in a regression.

    Raises:
        SettingsError: when `per_source`, `grades.column` or `grades.key` is set and no `pool` is given.
        InputError: when ratings, neighbours, pool, embeddings or grades do not belong together.
    """
    if settings.per_source is not None and pool is None:
        raise SettingsError("per_source needs the pool, which has each sample's source", action="give the pool as well")
    if settings.grades is not None and settings.grades.pool_field is not None and pool is None:
        name = "field" if settings.grades.column is None else "column"
        raise SettingsError(
            f"grades.{name} is '{settings.grades.pool_field}', a field of the pool", action="give the pool as well"
        )
    inputs = {"ratings": Input(list(ratings), "ratings"), "neighbors": Input(neighbors, "neighbors")}
    if settings.mode == "exact" or settings.grades is not None:
        inputs["pool"] = Input(pool, "pool")
    if settings.mode == "exact":
        inputs["embeddings"] = Input(embeddings, "embeddings")
    files = {} if settings.grades is None else fingerprints(settings.grades)
    return run_step("curation", "curation", settings, _run, out=out, inputs=inputs, files=files)


def _run(step: Step[CurationSettings]) -> None:
    settings = step.settings
    ids, indices, distances = _graph(step.input("neighbors"))
    given = read_all(list(step.inputs("ratings")), ids, settings)
    for artifact, ratings in zip(step.inputs("ratings"), given, strict=True):
        _log_scale(artifact, ratings.rater, settings)
    pool = next(iter(step.inputs("pool")), None)
    embeddings = next(iter(step.inputs("embeddings")), None)
    known = None if pool is None or settings.mode != "exact" else read_pool(pool, ids)
    grades = _grades(step, ids, pool)
    arrays = Arrays(
        np.stack([ratings.scores for ratings in given], axis=1),
        indices,
        distances,
        None if embeddings is None else _vectors(embeddings, ids),
        None if known is None else known.lengths,
        None if grades is None else grades.classes,
        grades.weights if grades is not None and grades.weighted else None,
        np.stack([ratings.reachable for ratings in given]),
    )
    places = {} if known is None or settings.per_source is None else known.sources
    diversity = _diversity(distances, settings)
    results = _curate_each(arrays, given, places, settings)
    if settings.combine:
        _add_combined(results, arrays, given, places, settings)
    for result in results.values():
        _add_grades(result, grades, settings)
    classes = settings.classes if settings.posterior else None
    step.rows = write_results(step.out, ids, results, diversity, classes=classes)
    for rater, result in results.items():
        _log_warnings(rater, result)
    write_corrections(step.out / "corrections.parquet", ids, results, indices, distances)
    diagnoses = {rater: result.diagnosis for rater, result in results.items()}
    text = json.dumps(diagnoses, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (step.out / "diagnosis.json").write_text(text + "\n", encoding="utf-8")
    _add_facts(step, given, diagnoses)
    if grades is not None:
        step.facts["graded"] = grades.graded
    if embeddings is not None:  # the limits of the embedding, for the report
        kept = ("texts_cut", "equal_vectors", "taken_over", "beginnings_left_out")
        step.facts["embedding"] = {k: v for k, v in embeddings.manifest.facts.items() if k in kept}
    step.facts["warnings"] = {name: found["warnings"] for name, found in diagnoses.items() if found["warnings"]}


def _curate_each(
    arrays: Arrays, given: Sequence[Ratings], places: Mapping[str, NDArray[np.intp]], settings: CurationSettings
) -> dict[str, Curated]:
    """Each rater's scores, curated without the other raters; the diagnoses compare the raters."""
    results = {}
    for number, ratings in enumerate(given):
        log.info("curation: %s", ratings.rater)
        alone = replace(arrays, ratings=arrays.ratings[:, [number]], reachable=ratings.reachable[None])
        result = results[ratings.rater] = _curate(alone, places, settings, fill=_fills(settings, [ratings]))
        result.diagnosis["warnings"] += _warnings(ratings, settings, arrays.indices.shape[1])
    if len(results) > 1:
        raters.compare(results, settings.classes)
    return results


def _add_combined(
    results: dict[str, Curated],
    arrays: Arrays,
    given: Sequence[Ratings],
    places: Mapping[str, NDArray[np.intp]],
    settings: CurationSettings,
) -> None:
    """Add the scores of all raters together, named `COMBINED`."""
    log.info("curation: %s", COMBINED)
    together = results[COMBINED] = _curate(arrays, places, settings, fill=_fills(settings, given))
    together.diagnosis["raters"] = [ratings.rater for ratings in given]
    by_rater = together.diagnosis.pop("T_by_rater")
    for result in results.values():  # another rater is there already
        if ADD_A_RATER in result.diagnosis.get("advice", ()):
            result.diagnosis["advice"].remove(ADD_A_RATER)
    together.diagnosis["rater_T"] = dict(zip(together.diagnosis["raters"], by_rater, strict=True))


def _log_warnings(rater: str, result: Curated) -> None:
    for warning in result.diagnosis["warnings"]:
        nothing = warning in result.diagnosis.get("reasons", ()) and not result.diagnosis["counts"]["corrected"]
        log.warning("curation: %s: %s%s", rater, warning, ", so nothing was changed" if nothing else "")


def _add_facts(step: Step[CurationSettings], given: Sequence[Ratings], diagnoses: Mapping[str, Any]) -> None:
    """Add the counts of all raters together, without the combined scores."""
    for name in ("rated", "unrated", "flagged", "corrected", "filled"):
        step.facts[name] = sum(diagnoses[ratings.rater]["counts"][name] for ratings in given)
    step.facts["unknown_ratings"] = sum(ratings.unknown for ratings in given)
    step.facts["raters"] = len(given)


def _fills(settings: CurationSettings, given: Sequence[Ratings]) -> bool:
    """Whether samples without a rating get their most probable class."""
    if settings.fill_missing == "auto":
        return any(ratings.not_asked for ratings in given)
    return settings.fill_missing


def _warnings(ratings: Ratings, settings: CurationSettings, k: int) -> list[str]:
    warnings = []
    if settings.neighbors != "auto" and settings.neighbors > k:
        warnings.append(f"neighbors is {settings.neighbors}, but the graph has {k}: all were used")
    if ratings.unknown:
        warnings.append(
            f"{ratings.unknown} ratings are of samples that the neighbour graph does not have; they were left out"
        )
    return warnings


def _grades(step: Step[CurationSettings], ids: Keys, pool: Artifact | None) -> Grades | None:
    settings = step.settings
    if settings.grades is None:
        return None
    found = read_grades(
        settings.grades, ids, lowest=settings.lowest, highest=settings.highest, scratch=step.scratch, pool=pool
    )
    log.info("curation: %d samples have a human grade; %s", found.graded, _how_chosen(found))
    return found


def _add_grades(result: Curated, grades: Grades | None, settings: CurationSettings) -> None:
    """Add facts about the grades to the diagnosis and, if the model did not use them, estimates of the errors."""
    if grades is None:
        return
    result.diagnosis["warnings"] += grades.warnings
    counts = {"graded": grades.graded, "unknown": grades.unknown, "empty": grades.empty, "weighted": grades.weighted}
    counts |= grades.chosen | {"equal_weights": grades.equal}
    changed = (grades.classes != UNRATED) & (result.raw != UNRATED) & (result.score != result.raw)
    by_grades = int(changed.sum()) if settings.mode == "exact" else 0
    result.diagnosis["grades"] = counts | {"agreement": grades.agreement, "scores_changed": by_grades}
    if result.diagnosis.get("held_out") is None:  # by scores that have not seen the grades
        score = result.score if result.held_out is None else result.held_out.in_place(result.score)
        weights = grades.weights if grades.weighted else None
        result.diagnosis["held_out"] = honest.honest_error(grades.classes, result.raw, score, weights=weights)
    if settings.mode != "exact":  # they are there to be compared with published results
        result.diagnosis["warnings"].append(
            f"the mode {settings.mode} does not use grades: they are only compared with its scores"
        )


def _log_scale(ratings: Artifact, rater: str, settings: CurationSettings) -> None:
    """Log the class of each score, if the scores were given on another scale than 1 to 10."""
    text = str(ratings.manifest.facts.get("scale", Scale()))
    scale = scale_of(text) if text != str(Scale()) and settings.value == "overall" else None
    if scale is not None:
        classes = classes_in_words(scale, ratings.manifest.facts.get(POSSIBLE), settings.lowest, settings.highest)
        log.info("curation: of the scores by %s, on the scale %s, %s", rater, scale, classes)


def _how_chosen(grades: Grades) -> str:
    """How the graded samples were chosen, as text."""
    if not grades.weighted:
        return "the files do not say how they were chosen, so they count as a random draw (see 'weight' in the README)"
    counts = grades.chosen
    said = f"{counts['drawn_at_random']} drawn at random, {counts['chosen_otherwise']} chosen otherwise"
    return f"{said}; {grades.equal} random ones have no weight and count equally" if grades.equal else said


def _vectors(artifact: Artifact, ids: Keys) -> NDArray[Any]:
    """The vectors in the graph's order; memory-mapped if they already have this order.

    Raises:
        InputError: when a sample of the graph has no vector.
    """
    theirs = read_keys(artifact.path("ids.parquet"), where=f"{artifact.location}, ids.parquet")
    vectors: NDArray[Any] = np.load(artifact.path("vectors.npy"), mmap_mode="r", allow_pickle=False)
    if np.array_equal(theirs, ids):
        return vectors
    places = positions(ids, theirs)
    if missing := int((places < 0).sum()):
        raise InputError(
            f"{artifact.location}: {missing} of the graph's {len(ids)} samples have no vector here",
            action="use the embeddings that the graph was made from",
        )
    return np.asarray(vectors[places])


def _diversity(distances: Floats, settings: CurationSettings) -> NDArray[np.float32]:
    wanted, (n, k) = settings.diversity_neighbors, distances.shape
    if settings.diversity == "paper" and wanted > k:
        if k < n - 1:
            raise InputError(
                f"diversity_neighbors is {wanted}, but the graph has {k} neighbours",
                action="find more neighbours (neighbors.k), or lower diversity_neighbors",
            )
        log.warning(
            "curation: diversity is the mean distance to %d neighbours, not %d, because there are no more", k, wanted
        )
    return diversity_scores(distances, wanted, settings.diversity)


def _curate(
    arrays: Arrays, places: Mapping[str, NDArray[np.intp]], settings: CurationSettings, *, fill: bool
) -> Curated:
    curate = partial(_curate_one, settings=settings, fill=fill)
    if settings.per_source is None:
        return curate(arrays)
    return sources.curate(curate, arrays, places, classes=settings.classes, smallest=settings.per_source)


def _curate_one(arrays: Arrays, *, settings: CurationSettings, fill: bool) -> Curated:
    if settings.mode != "exact":
        return rounds.curate(
            arrays.ratings[:, 0],
            arrays.indices,
            arrays.distances,
            classes=settings.classes,
            confidence=settings.threshold,
            doubled=settings.mode == "reference",
            seed=settings.seed,
            reachable=None if arrays.reachable is None else arrays.reachable[0],
        )
    return model.curate(
        arrays.ratings,
        arrays.indices,
        arrays.distances,
        embeddings=arrays.embeddings,
        covariates=arrays.covariates,
        covariate_names=None if arrays.covariates is None else LENGTHS,
        grades=arrays.grades,
        grade_weights=arrays.grade_weights,
        classes=settings.classes,
        assume=settings.assume,
        confidence=settings.threshold,
        fill_missing=fill,
        neighbors=settings.neighbors,
        copy_distance=settings.copy_distance if settings.copies == "exclude" else None,
        fit_samples=settings.fit_samples,
        reachable=arrays.reachable,
        keep_posterior=settings.posterior or (settings.per_source is not None and arrays.grades is not None),
    )


def _graph(artifact: Artifact) -> tuple[Keys, Ints, Floats]:
    """Ids and the memory-mapped graph.

    Raises:
        InputError: when its files do not match.
    """
    ids = read_keys(artifact.path("ids.parquet"), where=f"{artifact.location}, ids.parquet")
    indices = np.load(artifact.path("indices.npy"), mmap_mode="r")
    distances = np.load(artifact.path("distances.npy"), mmap_mode="r")
    if len(indices) != len(ids) or indices.shape != distances.shape:
        raise InputError(
            f"{artifact.location}: {len(ids)} ids do not match indices {indices.shape} and distances {distances.shape}",
            action="find the neighbours again",
        )
    return ids, indices, distances
