"""What scores correlate with besides quality: text length, source and language, before and after curation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.core import ranks
from tamis.reporting.blocks import Cell, Figure, Figures, Section, Table, Text, Tone, Warnings
from tamis.reporting.charts import pairs
from tamis.reporting.evidence import Evidence
from tamis.reporting.numbers import DASH, count, decimal, listed, percent
from tamis.reporting.raters import Curated

# An increase of a correlation by this much causes a warning. Removing noise strengthens true correlations too: if noise
# leaves 60 % of a correlation of 0.37, it rises from 0.22 to 0.37 when all noise is gone. A larger increase takes a
# stronger correlation, or a model that has learnt the trait itself: for one rater of Alpaca, curation without grades
# raised the correlation with length from 0.34 to 0.61.
STRONGER = 0.15
_FEWEST = 200  # fewest samples for a warning: chance then changes a correlation by about 0.07
_MOST = 1_000_000  # most samples used; a random sample of larger pools changes a correlation by about 0.001
_SMALL = 20  # samples below which sources, or languages, are counted together
_OTHERS = "others"
PREDICTED = "predicted"
_ANSWER, _WHOLE = "answer length", "sample length"
_LANGUAGES = 6  # named in the text


@dataclass(frozen=True)
class Traits:
    """Traits of m samples that scores may correlate with: ranks of two lengths, and groups as codes."""

    lengths: dict[str, NDArray[np.float64]]
    groups: dict[str, NDArray[np.int64]]

    @property
    def answer(self) -> NDArray[np.float64]:
        """Ranks of the answers' lengths, which partial correlations hold fixed."""
        return self.lengths[_ANSWER]


@dataclass(frozen=True)
class Correlations:
    """Correlations of one column of scores with each trait; NaN if undefined.

    Attributes:
        samples: number of scores.
        lengths: rank correlation with each length.
        groups: correlation ratio with each kind of groups, plain and with the answer's length held fixed.
        by_chance: correlation ratio that this number of samples and groups gives by chance.
        raw: rank correlation with the raw scores, plain and with the answer's length held fixed.
    """

    samples: int
    lengths: dict[str, float]
    groups: dict[str, tuple[float, float]]
    by_chance: dict[str, float]
    raw: tuple[float, float]

    @property
    def traits(self) -> dict[str, float]:
        """All that a score should not follow, by name."""
        found = dict(self.lengths)
        for name, (plain, partial) in self.groups.items():
            found |= {name: plain, given(name): partial}
        return found


@dataclass(frozen=True)
class Bias:
    """Correlations of a rater's columns of scores.

    The columns are raw, curated and, if it differs, mean, for the rated samples, and `PREDICTED` for the others if they
    are enough.
    """

    rater: str
    columns: dict[str, Correlations] = field(default_factory=dict)

    @cached_property
    def stronger(self) -> dict[str, tuple[str, float, float]]:
        """Traits with a much stronger correlation after curation, with the column, its raw and its curated value."""
        found: dict[str, tuple[str, float, float]] = {}
        for column, correlations in self.columns.items():
            for trait, value in correlations.traits.items():
                before = self.columns["raw"].traits.get(trait, np.nan)
                if self.much_stronger(value, before):
                    found.setdefault(trait, (column, before, value))
        return found

    def much_stronger(self, value: float, raw: float) -> bool:
        """Whether `value` is a much stronger correlation than the raw scores have."""
        return self.columns["raw"].samples >= _FEWEST and abs(value) - abs(raw) >= STRONGER


def given(group: str) -> str:
    """The name of a kind of groups with the answer's length held fixed."""
    return f"{group}, given length"


def build(evidence: Evidence) -> Section:
    """Rank correlations with lengths, correlation ratios with sources and languages, before and after curation."""
    section = Section("bias", "Bias")
    if evidence.curation is None:
        return section
    found = [bias for rater in evidence.curation.raters.values() if (bias := _of(rater, evidence)) is not None]
    if not found:
        section.add(Text("No rater has enough scores to measure what they correlate with.", lead=True))
        return section
    warned = [bias for bias in found if bias.stronger]
    section.sentence = " ".join(_in_short(bias) for bias in warned)
    section.add(Text(_lead(found), lead=True))
    if warned:
        section.add(Warnings([_warning(bias) for bias in warned]))
    section.add(
        Text(
            "Lengths are in characters; the answer is all of the assistant's messages. Correlations are Spearman's. "
            "For sources and languages the page gives the correlation ratio of the ranks: 0 if all groups score alike, "
            "1 if the group determines the score. Chance alone makes it positive; the table says by how much. “Given "
            f"length” means with the answer's length held fixed. {_on_languages(evidence)}"
        ),
        Figures([_figure(bias, evidence) for bias in found]),
        _lengths(found, evidence),
    )
    groups = _groups(found)
    if groups is not None:
        section.add(groups)
    for bias in found:
        for column, correlations in bias.columns.items():
            for trait, value in correlations.traits.items():
                section.measured(bias.rater, f"{column} scores and {trait}", _or_none(value), n=correlations.samples)
            if column not in ("raw", PREDICTED):
                for name, value in zip(("", ", given length"), correlations.raw, strict=True):
                    section.measured(
                        bias.rater, f"{column} and raw scores{name}", _or_none(value), n=correlations.samples
                    )
    return section


def _of(rater: Curated, evidence: Evidence) -> Bias | None:
    rows = _some(np.flatnonzero((rater.raw >= 0) & (rater.score >= 0)))
    if len(rows) < 3:
        return None
    traits, raw = _traits(rows, evidence), ranks.ranked(rater.raw[rows])
    bias = Bias(rater.rater)
    bias.columns["raw"] = _correlations(raw, raw, traits)
    bias.columns["curated"] = _correlations(ranks.ranked(rater.score[rows]), raw, traits)
    score = rater.score[rows].astype(np.float32)
    mean = np.where(np.isnan(rater.mean[rows]), score, rater.mean[rows])
    if (mean != score).any():
        bias.columns["mean"] = _correlations(ranks.ranked(mean), raw, traits)
    rows = _some(np.flatnonzero((rater.raw < 0) & ((rater.score >= 0) | np.isfinite(rater.mean))))
    if len(rows) >= _FEWEST:
        predicted = np.where(np.isnan(rater.mean[rows]), rater.score[rows], rater.mean[rows])
        bias.columns[PREDICTED] = _correlations(
            ranks.ranked(predicted), np.full(len(rows), np.nan), _traits(rows, evidence)
        )
    return bias


def _some(rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """The rows, or a random `_MOST` of them."""
    if len(rows) <= _MOST:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, _MOST, replace=False))


def _traits(rows: NDArray[np.intp], evidence: Evidence) -> Traits:
    samples = evidence.samples
    lengths = {_ANSWER: ranks.ranked(samples.answer[rows]), _WHOLE: ranks.ranked(samples.length[rows])}
    groups = {}
    for name, codes in (("source", samples.source), (_language(evidence), samples.language)):
        kept = _kept(codes[rows])
        if kept is not None:
            groups[name] = kept
    return Traits(lengths, groups)


def _kept(codes: NDArray[np.integer[Any]]) -> NDArray[np.int64] | None:
    """Codes 0.. with small groups merged into one; None if fewer than two large groups are left."""
    sizes = np.bincount(codes)
    large = sizes >= _SMALL
    if large.sum() < 2:
        return None
    place = np.where(large, np.cumsum(large) - 1, large.sum())
    return np.unique(place[codes], return_inverse=True)[1].astype(np.int64)


def _correlations(scores: NDArray[np.float64], raw: NDArray[np.float64], traits: Traits) -> Correlations:
    answer = traits.answer
    return Correlations(
        len(scores),
        {name: ranks.correlation(scores, lengths) for name, lengths in traits.lengths.items()},
        {
            name: (ranks.correlation_ratio(scores, codes), ranks.partial_ratio(scores, codes, answer))
            for name, codes in traits.groups.items()
        },
        {name: ranks.ratio_by_chance(len(scores), int(codes.max()) + 1) for name, codes in traits.groups.items()},
        (ranks.correlation(scores, raw), ranks.partial_correlation(scores, raw, answer)),
    )


def _language(evidence: Evidence) -> str:
    return "language" if evidence.samples.language_field else "script"


def _on_languages(evidence: Evidence) -> str:
    """Where the languages come from, and what they are."""
    samples = evidence.samples
    sizes = np.bincount(samples.language, minlength=len(samples.languages))
    named = [
        f"{name} {percent(int(size), len(samples))}"
        for name, size in list(zip(samples.languages, sizes, strict=True))[:_LANGUAGES]
    ]
    more = len(samples.languages) - len(named)
    said = listed([*named, *([f"{more} more"] if more > 0 else [])])
    if samples.language_field:
        return f"Languages come from the pool's field '{samples.language_field}': {said}."
    if (sizes >= _SMALL).sum() < 2:
        return f"The pool names no languages, and (almost) all of its samples use one script: {said}."
    return f"The pool names no languages, so the script of most of a sample's letters is used instead ({said})."


def _lead(found: Sequence[Bias]) -> str:
    """Whether curation made any correlation much stronger."""
    checked = [bias for bias in found if bias.columns["raw"].samples >= _FEWEST]
    if not checked:
        return f"Fewer than {_FEWEST} samples have scores, too few to measure what they correlate with."
    stronger = [bias.rater for bias in checked if bias.stronger]
    if stronger:
        return (
            "Curated scores correlate with length, source or language much more strongly than the ratings do: "
            f"{listed(stronger)}."
        )
    first = checked[0].columns
    before, after = (decimal(first[name].lengths[_ANSWER]) for name in ("raw", "curated"))
    return (
        f"Curation strengthened no correlation with length, source or language by {STRONGER} or more. The scores of "
        f"{checked[0].rater} correlate with the answer's length by {before} as rated and by {after} curated."
    )


def _in_short(bias: Bias) -> str:
    """The correlation that grew most, for the headline."""
    trait, (column, before, after) = max(bias.stronger.items(), key=lambda item: abs(item[1][2]) - abs(item[1][1]))
    return (
        f"Curation made the scores of {bias.rater} correlate more strongly with {_words(trait)} ({_column(column)} "
        f"{decimal(after)}, raw {decimal(before)})."
    )


def _warning(bias: Bias) -> str:
    by_column: dict[str, list[str]] = {}
    for trait, (column, before, after) in bias.stronger.items():
        by_column.setdefault(column, []).append(f"{_words(trait)} ({decimal(after)}, raw {decimal(before)})")
    said = listed([f"the {_column(column)} correlate with {listed(traits)}" for column, traits in by_column.items()])
    return (
        f"{bias.rater}: {said} much more strongly than the raw scores do. Removing noise strengthens every true "
        "correlation, but rarely by this much. Before you trust a ranking by these scores, compare them with human "
        "grades, or check the lengths and sources in the subset."
    )


def _words(trait: str) -> str:
    return trait.replace(", given length", " at equal answer length")


def _column(name: str) -> str:
    return "posterior means" if name == "mean" else f"{name} scores"


def _figure(bias: Bias, evidence: Evidence) -> Figure:
    raw, curated = (bias.columns[name].traits for name in ("raw", "curated"))
    said = "; ".join(f"{trait} {decimal(raw[trait])} to {decimal(curated[trait])}" for trait in raw)
    return Figure(
        f"bias-{evidence.rater_slugs[bias.rater]}",
        f"{bias.rater}: what the scores correlate with",
        f"Correlations of raw and of curated scores as dots: {said}.",
        pairs(
            list(raw),
            [_or_none(value) for value in raw.values()],
            [_or_none(value) for value in curated.values()],
            x="correlation, or correlation ratio",
            names=("raw", "curated"),
        ),
        height=85 + 28 * len(raw),
    )


def _lengths(found: Sequence[Bias], evidence: Evidence) -> Table:
    rows: list[list[Cell | str]] = []
    for bias in found:
        raw = bias.columns["raw"]
        for name, correlations in bias.columns.items():
            cells: list[Cell | str] = [
                _cell(correlations.lengths[trait], raw.lengths[trait], bias) for trait in (_ANSWER, _WHOLE)
            ]
            beside = [DASH, DASH] if name == "raw" else [decimal(_or_none(value)) for value in correlations.raw]
            rows.append([f"{bias.rater}, {name}", *cells, *beside, count(correlations.samples)])
    note = "Coloured: much stronger than for the raw scores."
    field, known = evidence.settings.truth, np.flatnonzero(evidence.truth >= 0)
    if field is not None and len(known) >= 3:
        some = _some(known)
        truth = ranks.ranked(evidence.truth[some])
        traits = [ranks.ranked(lengths[some]) for lengths in (evidence.samples.answer, evidence.samples.length)]
        follow = [decimal(_or_none(ranks.correlation(truth, trait))) for trait in traits]
        rows.append([f"the truth, '{field}'", *follow, DASH, DASH, count(len(some))])
        note += f" If '{field}' itself correlates with length, scores should, too."
    columns = ["scores", _ANSWER, _WHOLE, "raw scores", given("raw scores"), "samples"]
    return Table("Rank correlation of scores with length", columns, rows, note=note)


def _groups(found: Sequence[Bias]) -> Table | None:
    kinds = list(dict.fromkeys(kind for bias in found for kind in bias.columns["raw"].groups))
    if not kinds:
        return None
    rows: list[list[Cell | str]] = []
    for bias in found:
        raw = bias.columns["raw"].groups
        for name, correlations in bias.columns.items():
            cells: list[Cell | str] = []
            for kind in kinds:
                if kind in correlations.groups and kind in raw:
                    cells += [_cell(correlations.groups[kind][i], raw[kind][i], bias) for i in (0, 1)]
                    cells.append(Cell(decimal(correlations.by_chance[kind]), "muted"))
                else:
                    cells += [DASH] * 3
            rows.append([f"{bias.rater}, {name}", *cells])
    columns = [column for kind in kinds for column in (kind, given(kind), f"{kind}, by chance")]
    note = f"Sources and languages with fewer than {_SMALL} samples are counted together as {_OTHERS}."
    return Table("Correlation ratio of scores with groups", ["scores", *columns], rows, note=note)


def _cell(value: float, raw: float, bias: Bias) -> Cell:
    tone: Tone = "bad" if bias.much_stronger(value, raw) else ""
    return Cell(decimal(_or_none(value)), tone)


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None
