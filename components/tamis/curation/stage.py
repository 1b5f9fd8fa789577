"""The curation stage: ratings and neighbours in, curated scores and a diagnosis of each rater out."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact, Manifest
from tamis.core.errors import InputError, SettingsError
from tamis.core.ids import Keys, pack, positions, read_keys, unpack
from tamis.core.steps import Input, Step, Uri, run_step
from tamis.core.tables import CURATION, PartsWriter, curation_with_posterior
from tamis.curation import exact, raters, rounds, sources
from tamis.curation.classes import UNRATED
from tamis.curation.diversity import diversity_scores
from tamis.curation.examples import write_corrections
from tamis.curation.neighborhoods import Floats, Ints
from tamis.curation.ratings import Ratings, read_all
from tamis.curation.result import Curated
from tamis.curation.settings import CurationSettings

log = logging.getLogger(__name__)
_BLOCK = 100_000  # rows written together


def run(
    settings: CurationSettings, *, ratings: Sequence[Uri], neighbors: Uri, pool: Uri | None = None, out: Uri
) -> Manifest:
    """Curate the scores of every rater.

    The artifact at `out` holds the table of all raters, `diagnosis.json` and `corrections.parquet`.

    Raises:
        SettingsError: when `per_source` is set and no `pool` is given, which knows the sources.
        InputError: when ratings, neighbours or pool cannot be used together.
    """
    if settings.per_source is not None and pool is None:
        raise SettingsError("per_source needs to know each sample's source", action="give the pool too")
    inputs = {"ratings": Input(list(ratings), "ratings"), "neighbors": Input(neighbors, "neighbors")}
    if settings.per_source is not None:
        inputs["pool"] = Input(pool, "pool")
    return run_step("curation", "curation", settings, _run, out=out, inputs=inputs)


def _run(step: Step[CurationSettings]) -> None:
    settings = step.settings
    ids, indices, distances = _graph(step.input("neighbors"))
    given = read_all(list(step.inputs("ratings")), ids, settings)
    places = {} if settings.per_source is None else _sources(step.input("pool"), ids)
    diversity = _diversity(distances, settings)
    results = {}
    for ratings in given:
        log.info("curation: %s", ratings.rater)
        result = results[ratings.rater] = _curate_rater(ratings, indices, distances, places, settings)
        if settings.neighbors != "auto" and settings.neighbors > indices.shape[1]:
            result.diagnosis["warnings"].append(
                f"neighbors is {settings.neighbors}, but the graph has {indices.shape[1]}: all were used"
            )
        if ratings.unknown:
            result.diagnosis["warnings"].append(
                f"{ratings.unknown} ratings are of samples that the neighbour graph does not have; they were left out"
            )
    if len(results) > 1:
        raters.compare(results, settings.classes)
    if settings.combine:
        results[raters.COMBINED] = raters.combine(
            results, settings.classes, threshold=settings.threshold, fill_missing=settings.fill_missing
        )
    classes = settings.classes if settings.posterior else None
    schema = CURATION if classes is None else curation_with_posterior(classes)
    with PartsWriter(step.out, schema, _BLOCK) as table:
        for rater, result in results.items():
            _write(table, ids, rater, result, diversity, classes)
            for warning in result.diagnosis["warnings"]:
                log.warning("curation: %s: %s", rater, warning)
    write_corrections(step.out / "corrections.parquet", ids, results, indices, distances)
    diagnoses = {rater: result.diagnosis for rater, result in results.items()}
    text = json.dumps(diagnoses, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (step.out / "diagnosis.json").write_text(text + "\n", encoding="utf-8")
    step.rows = table.rows
    for name in ("rated", "unrated", "flagged", "corrected", "filled"):
        step.facts[name] = sum(diagnoses[ratings.rater]["counts"][name] for ratings in given)
    step.facts["unknown_ratings"] = sum(ratings.unknown for ratings in given)
    step.facts["raters"] = len(given)
    step.facts["warnings"] = {name: found["warnings"] for name, found in diagnoses.items() if found["warnings"]}


def _diversity(distances: Floats, settings: CurationSettings) -> NDArray[np.float32]:
    wanted, (n, k) = settings.diversity_neighbors, distances.shape
    if settings.diversity == "paper" and wanted > k:
        if k < n - 1:
            raise InputError(
                f"diversity_neighbors is {wanted}, and the graph has {k} neighbours",
                action="find more neighbours (neighbors.k), or lower diversity_neighbors",
            )
        log.warning("curation: diversity is the mean distance to %d neighbours, not %d: there are no more", k, wanted)
    return diversity_scores(distances, wanted, settings.diversity)


def _curate_rater(
    ratings: Ratings,
    indices: Ints,
    distances: Floats,
    places: Mapping[str, NDArray[np.intp]],
    settings: CurationSettings,
) -> Curated:
    curate = partial(_curate, settings=settings)
    if settings.per_source is None:
        return curate(ratings.scores, indices, distances)
    return sources.curate(
        curate, ratings.scores, indices, distances, places, classes=settings.classes, smallest=settings.per_source
    )


def _curate(scores: NDArray[np.int8], indices: Ints, distances: Floats, settings: CurationSettings) -> Curated:
    if settings.mode != "exact":
        return rounds.curate(
            scores,
            indices,
            distances,
            classes=settings.classes,
            confidence=settings.threshold,
            doubled=settings.mode == "reference",
            seed=settings.seed,
        )
    return exact.curate(
        scores,
        indices,
        distances,
        classes=settings.classes,
        neighbors=settings.neighbors,
        confidence=settings.threshold,
        fill_missing=settings.fill_missing,
        copy_distance=settings.copy_distance if settings.copies == "exclude" else None,
        fit_samples=settings.fit_samples,
        ordinal=settings.ordinal,
        bootstrap=settings.bootstrap,
        seed=settings.seed,
        keep_evidence=settings.combine,
    )


def _sources(pool: Artifact, ids: Keys) -> dict[str, NDArray[np.intp]]:
    """The graph's samples of each source, by the source's name.

    Raises:
        InputError: when the pool lacks a sample of the graph.
    """
    keys, parts = [], []
    for batch in pool.batches(["id", "source"], rows=_BLOCK):
        keys.append(pack(batch["id"], where=f"{pool.location}"))
        parts.append(batch["source"].dictionary_encode())
    places = positions(ids, np.concatenate(keys))
    if missing := int((places < 0).sum()):
        raise InputError(
            f"{pool.location}: {missing} of the graph's {len(ids)} samples are not in this pool",
            action="give the pool that was embedded",
        )
    names = pa.chunked_array(parts).unify_dictionaries().combine_chunks()
    codes = names.indices.to_numpy()[places]
    return {name: np.flatnonzero(codes == code) for code, name in enumerate(names.dictionary.to_pylist())}


def _graph(artifact: Artifact) -> tuple[Keys, Ints, Floats]:
    """Ids and the memory-mapped graph.

    Raises:
        InputError: when its files do not fit together.
    """
    ids = read_keys(artifact.path("ids.parquet"), where=f"{artifact.location}, ids.parquet")
    indices = np.load(artifact.path("indices.npy"), mmap_mode="r")
    distances = np.load(artifact.path("distances.npy"), mmap_mode="r")
    if len(indices) != len(ids) or indices.shape != distances.shape:
        raise InputError(
            f"{artifact.location}: {len(ids)} ids, indices {indices.shape} and distances {distances.shape} do not fit",
            action="find the neighbours again",
        )
    return ids, indices, distances


def _write(
    table: PartsWriter,
    ids: Keys,
    rater: str,
    result: Curated,
    diversity: NDArray[np.float32],
    classes: int | None,
) -> None:
    """Write a rater's rows; with `classes` also the probabilities of so many."""
    means = result.means()
    for start in range(0, len(ids), _BLOCK):
        rows = slice(start, start + _BLOCK)
        columns = {
            "id": unpack(ids[rows]),
            "rater": pa.repeat(rater, len(ids[rows])),
            "raw_score": _classes(result.raw[rows]),
            "score": _classes(result.score[rows]),
            "flagged": pa.array(result.flagged[rows]),
            "error_probability": pa.array(result.error_probability[rows], from_pandas=True),
            "suggested": _classes(result.suggested[rows]),
            "confidence": pa.array(result.confidence[rows], from_pandas=True),
            "mean": pa.array(means[rows], from_pandas=True),
            "diversity": pa.array(diversity[rows]),
        }
        if classes is not None:
            columns["posterior"] = _posteriors(result.posterior, rows, len(ids[rows]), classes)
        table.write(pa.table(columns))


def _posteriors(posterior: NDArray[np.float32] | None, rows: slice, n: int, classes: int) -> pa.Array:
    """Probabilities of n samples as lists of `classes`, null where they are not known."""
    if posterior is None:
        return pa.nulls(n, pa.list_(pa.float32(), classes))
    values = posterior[rows].astype(np.float32, copy=False)
    unknown = np.isnan(values).any(1)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), classes, mask=pa.array(unknown))


def _classes(scores: NDArray[np.int8]) -> pa.Array:
    return pa.array(scores, pa.int8(), mask=scores == UNRATED)
