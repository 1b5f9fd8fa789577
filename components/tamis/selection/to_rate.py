"""`tamis rating next`: the unrated samples whose ratings are most likely to change a subset."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError, SettingsError, StorageError
from tamis.core.ids import Keys, tie_breaks, unpack
from tamis.core.settings import parse
from tamis.core.steps import Uri
from tamis.core.storage import Location, children, exists, locate, write_bytes
from tamis.selection.candidates import Candidates, Column
from tamis.selection.changes import Next, Subset, change_probability, next_to_rate, subset_of
from tamis.selection.raters import describe_cost, describe_next_step, paid_for, read_raters
from tamis.selection.reading import excluded, rater_of, read_curation, read_pool, read_posteriors
from tamis.selection.settings import SelectionSettings, strategy_of
from tamis.selection.signals import barred_by

_TARGET = 0.02


@dataclass(frozen=True)
class Uncertainty:
    """What is unknown about a run's samples, and what that means for a subset.

    Attributes:
        ids: (n,) the pool's samples.
        probability: (n,) probability that a sample without a rating enters or leaves the subset; 0 for all others.
        unrated: (n,) bool, samples of the curation without a rating.
        unknown: how many of these have no posterior.
        size: samples in the subset.
    """

    ids: Keys
    probability: NDArray[np.float64]
    unrated: NDArray[np.bool_]
    unknown: int
    size: int

    @property
    def share(self) -> float:
        """Upper bound of the expected share of the subset that changes once all classes are known; may exceed 1."""
        return float(self.probability.sum()) / self.size


def next_ratings(
    run: Uri,
    *,
    subset: str,
    size: int | None = None,
    budget: float | None = None,
    target: float = _TARGET,
    rater: str | None = None,
    out: Uri | None = None,
) -> str:
    """Write the ids of the samples to rate next: `to-rate-1.txt` in the run's folder (or the next number), or `out`.

    Args:
        run: a run's folder, with its pool, curation and selections; local or in object storage.
        subset: name of the subset, which the strategy ds2 must have chosen.
        size: number of samples; without `size` and `budget`, the smallest number that meets the target.
        budget: take as many samples as this amount pays for, at the mean cost of a rating so far.
        target: share of the subset that may still change, 0..1; if it is met already, nothing is written.
        rater: the rater whose curated scores are used; by default the subset's.
        out: the file to write, .txt or .jsonl; it must not exist.

    Returns:
        What was found and written, and what to do next; the last line names the file.

    Raises:
        ArtifactError: when the run's pool, curation or selection is not finished.
        SettingsError: when an option is out of range or names something unknown, another strategy chose the subset, or
            the cost of a rating is unknown.
        InputError: when the artifacts are of different runs, the curation has no posteriors, or no sample can be rated.
        StorageError: when the file exists already, or a file cannot be read or written.
    """
    _check(size, budget, target)
    target_file = _target(run, out)
    with tempfile.TemporaryDirectory(prefix="tamis-") as temporary:
        cache = Path(temporary)

        def opened(name: str, kind: Any) -> Artifact:
            return Artifact.open(f"{str(run).rstrip('/')}/{name}", kind, cache=cache)

        selection = opened(f"selections/{subset}", "selection")
        pool, curation = opened("pool", "pool"), opened("curation", "curation")
        _check_same_run(selection, pool, curation)
        settings = parse(SelectionSettings, selection.manifest.config, where=f"{selection.location}, settings")
        if settings.strategy != "ds2":
            raise SettingsError(
                f"the strategy {settings.strategy} chose the subset '{subset}'", allowed="a subset by ds2 (--subset)"
            )
        decides = rater_of(curation, rater or selection.manifest.facts["rater"])
        signals = opened("signals", "signals") if settings.where else None
        uncertainty = _uncertainty(settings, pool, curation, signals, decides)
        raters, asked = read_raters(run, decides, uncertainty.ids, cache)
    change = _describe_change(uncertainty, subset, decides)
    if uncertainty.share <= target:
        return f"{change}\nthe target of {_percent(target)} is met: there is nothing to rate"
    most = size if budget is None else paid_for(budget, raters)
    ties = tie_breaks(uncertainty.ids, settings.seed, "to rate")
    chosen = next_to_rate(
        uncertainty.probability, uncertainty.unrated & ~asked, ties, size=uncertainty.size, target=target, most=most
    )
    if not len(chosen.rows):
        raise InputError(
            f"{change}; rating the samples that could change it was tried without success",
            action="look at their status and error in the ratings",
        )
    write_bytes(target_file, _as_file(uncertainty, chosen, target_file))
    lines = [
        f"{len(chosen.rows):,} samples to rate: those most likely to change the subset '{subset}'",
        *([f"{size:,} were requested; no other sample can change it"] if size and size > len(chosen.rows) else []),
        change,
        f"once they are rated, if their ratings are right: at most {_percent(chosen.after)}",
        _describe_target(chosen, target),
        describe_cost(len(chosen.rows), raters),
        describe_next_step(target_file, raters),
        f"to rate: {target_file}",
    ]
    return "\n".join(lines)


def _check(size: int | None, budget: float | None, target: float) -> None:
    if size is not None and budget is not None:
        raise SettingsError("--size and --budget are both given", allowed="one of them, or neither")
    if size is not None and size < 1:
        raise SettingsError(f"--size {size}", allowed="1 or more")
    if budget is not None and not 0 < budget < float("inf"):
        raise SettingsError(f"--budget {budget:g}", allowed="an amount of money above 0")
    if not 0 <= target <= 1:
        raise SettingsError(f"--target {target:g}", allowed="a share of the subset, 0 to 1")


def _target(run: Uri, out: Uri | None) -> Location:
    """The file to write.

    Raises:
        SettingsError: when its name has another ending.
        StorageError: when it exists.
    """
    if out is None:
        taken = {file.name for file in children(locate(run))}
        number = next(number for number in range(1, len(taken) + 2) if f"to-rate-{number}.txt" not in taken)
        return locate(f"{str(run).rstrip('/')}/to-rate-{number}.txt")
    if PurePosixPath(str(out)).suffix.lower() not in (".txt", ".jsonl"):
        raise SettingsError(f"--out {out}", allowed="a file that ends in .txt or .jsonl")
    target = locate(out)
    if exists(target):
        raise StorageError(
            f"{target} already exists, and a rater's `also` may name it", action="choose another file with --out"
        )
    return target


def _check_same_run(selection: Artifact, pool: Artifact, curation: Artifact) -> None:
    """Raise InputError if the subset was chosen from another pool or curation."""
    for other in (pool, curation):
        kind = other.manifest.kind
        made_from = selection.manifest.inputs.get(kind)
        if made_from and made_from != [other.manifest.content_hash]:
            raise InputError(
                f"{selection.location} was made from another {kind} than {other.location}",
                action="use the folder of one finished run, or run it again",
            )


def _uncertainty(
    settings: SelectionSettings, pool: Artifact, curation: Artifact, signals: Artifact | None, rater: str
) -> Uncertainty:
    """For each of the pool's samples, the probability that its rating would change the subset.

    Raises:
        InputError: when the curation knows nothing about the samples without a rating.
    """
    strategy = strategy_of(settings)
    candidates, barred = _read(settings, pool, curation, signals, rater)
    assert settings.size is not None
    assert candidates.diversity is not None
    subset = subset_of(
        strategy,
        candidates,
        settings.size,
        seed=settings.seed,
        barred=barred,
        min_score=settings.min_score,
        quotas=settings.sources,
    )
    unrated = (candidates.column("raw_scores") < 0) & ~barred["not in the curation"]
    never = np.logical_or.reduce(list(barred.values()))
    probability, known = _probabilities(subset, candidates, unrated, never, settings, curation, rater)
    unknown = int((unrated & ~known).sum())
    if unknown and unknown == int(unrated.sum()):
        raise InputError(
            f"{curation.location}: nothing is known about the {unknown:,} samples without a rating by '{rater}'",
            action="read the warnings in the curation's diagnosis.json; if neighbours say nothing, raise `sample`",
        )
    return Uncertainty(candidates.ids, probability, unrated, unknown, subset.size)


def _read(
    settings: SelectionSettings, pool: Artifact, curation: Artifact, signals: Artifact | None, rater: str
) -> tuple[Candidates, dict[str, NDArray[np.bool_]]]:
    """The candidates as the selection read them, and masks (n,) of those that must not be picked."""
    strategy, candidates = strategy_of(settings), read_pool(pool)
    barred: dict[str, NDArray[np.bool_]] = {}
    if settings.exclude:
        barred["excluded"], _ = excluded(settings.exclude, candidates.ids)
    if signals is not None:
        barred |= barred_by(settings.where, signals, candidates.ids)
    columns: list[Column] = list(dict.fromkeys(("raw_scores", *strategy.order, *strategy.needs)))
    found, barred["not in the curation"] = read_curation(curation, rater, columns, candidates.ids)
    return replace(candidates, **found), barred  # type: ignore[arg-type]


def _probabilities(
    subset: Subset,
    candidates: Candidates,
    unrated: NDArray[np.bool_],
    never: NDArray[np.bool_],
    settings: SelectionSettings,
    curation: Artifact,
    rater: str,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """For each candidate the probability of a change, (n,), and whether it has a posterior, (n,)."""
    probability, known = np.zeros(len(candidates)), np.zeros(len(candidates), bool)
    diversity = candidates.column("diversity")
    for rows, posterior in read_posteriors(curation, rater, candidates.ids):
        known[rows] = True
        for members, cut in subset.groups:
            here = np.flatnonzero(unrated[rows] & members[rows] & ~never[rows])
            some = rows[here]
            probability[some] = change_probability(
                posterior[here],
                subset.picked[some],
                diversity[some],
                subset.ties[some],
                cut,
                min_score=settings.min_score,
            )
    return probability, known


def _as_file(uncertainty: Uncertainty, chosen: Next, target: Location) -> bytes:
    """The ids, the most probable change first."""
    ids = unpack(uncertainty.ids[chosen.rows]).to_pylist()
    if Path(str(target)).suffix.lower() == ".txt":
        return "".join(f"{sample}\n" for sample in ids).encode()
    probabilities = uncertainty.probability[chosen.rows].tolist()
    rows = ({"id": one, "probability": round(p, 6)} for one, p in zip(ids, probabilities, strict=True))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _describe_change(uncertainty: Uncertainty, subset: str, rater: str) -> str:
    unrated = int(uncertainty.unrated.sum())
    if not unrated:
        return f"every sample has a rating by '{rater}'"
    line = (
        f"if the true classes of the {unrated:,} samples without a rating by '{rater}' were known, at most "
        f"{_percent(min(uncertainty.share, 1))} of the {uncertainty.size:,} samples in '{subset}' would change"
    )
    if uncertainty.unknown:
        line += f", not counting {uncertainty.unknown:,} samples about which the curation knows nothing"
    return line


def _describe_target(chosen: Next, target: float) -> str:
    count, enough = len(chosen.rows), chosen.enough
    if enough is None:
        return f"target of {_percent(target)}: not reached, even if all samples are rated that can be"
    if enough > count:
        more = enough - count
        return f"target of {_percent(target)}: not reached; it takes {more:,} more sample{'s' * (more != 1)}"
    first = f" with the first {enough:,} of them" if enough < count else ""
    return f"target of {_percent(target)}: reached{first}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
