"""What scores follow besides quality: the length of texts, their source, their language; before and after curation."""

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

# A correlation that grows by so much is warned of. Taking noise out of ratings strengthens every true relation too:
# where noise leaves 60 % of a correlation, one of 0.37 rises from 0.22 to 0.37 when all of it goes. More than that
# takes a relation that is stronger still, or a model that has learnt the trait itself: of one rater of Alpaca, curation
# without grades brought the correlation with length from 0.34 to 0.61.
STRONGER = 0.15
_FEWEST = 200  # samples from which it is warned: chance alone then changes a correlation by 0.07 or so
_MOST = 1_000_000  # samples looked at; of more, so many drawn at random: a correlation is then off by 0.001
_SMALL = 20  # samples below which sources, or languages, are counted together
_OTHERS = "others"
PREDICTED = "predicted"
_ANSWER, _WHOLE = "answer length", "sample length"
_LANGUAGES = 6  # named in the text


@dataclass(frozen=True)
class Traits:
    """What scores may follow, of m samples: ranks of two lengths, and groups as codes."""

    lengths: dict[str, NDArray[np.float64]]
    groups: dict[str, NDArray[np.int64]]

    @property
    def answer(self) -> NDArray[np.float64]:
        """Ranks of the answers' lengths, which the others are corrected for."""
        return self.lengths[_ANSWER]


@dataclass(frozen=True)
class Follows:
    """How far one column of scores follows each trait; NaN where it is not defined.

    Attributes:
        samples: how many scores there are.
        lengths: rank correlation with each length.
        groups: correlation ratio with each kind of groups, plain and with the answer's length held fixed.
        by_chance: the correlation ratio that groups of these numbers would have by chance.
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
    """A rater's columns of scores.

    Over the rated samples: raw, curated and, where it differs, mean. Over the others, where they are many: `PREDICTED`.
    """

    rater: str
    columns: dict[str, Follows] = field(default_factory=dict)

    @cached_property
    def stronger(self) -> dict[str, tuple[str, float, float]]:
        """Traits that a curated column follows much more than the raw scores do: the column, raw, curated."""
        found: dict[str, tuple[str, float, float]] = {}
        for column, follows in self.columns.items():
            for trait, value in follows.traits.items():
                before = self.columns["raw"].traits.get(trait, np.nan)
                if self.much(value, before):
                    found.setdefault(trait, (column, before, value))
        return found

    def much(self, value: float, raw: float) -> bool:
        """Whether `value` is a much stronger correlation than the raw scores have."""
        return self.columns["raw"].samples >= _FEWEST and abs(value) - abs(raw) >= STRONGER


def given(group: str) -> str:
    """The name of a kind of groups with the answer's length held fixed."""
    return f"{group}, given length"


def build(evidence: Evidence) -> Section:
    """Rank correlations with lengths, correlation ratios with sources and languages, and what curation did to them."""
    section = Section("bias", "Bias")
    if evidence.curation is None:
        return section
    found = [bias for rater in evidence.curation.raters.values() if (bias := _of(rater, evidence)) is not None]
    if not found:
        section.add(Text("No rater has scores enough to say what they follow.", lead=True))
        return section
    warned = [bias for bias in found if bias.stronger]
    section.sentence = " ".join(_in_short(bias) for bias in warned)
    section.add(Text(_lead(found), lead=True))
    if warned:
        section.add(Warnings([_warning(bias) for bias in warned]))
    section.add(
        Text(
            "Lengths are in characters; the answer is all that the assistant says. Correlations are Spearman's. For "
            "sources and languages stands the correlation ratio of the ranks: 0 where all groups score alike, 1 where "
            "the group tells the score. By chance alone it is above zero, as far as the table says. “Given length”: "
            f"what is left with the answer's length held fixed. {_on_languages(evidence)}"
        ),
        Figures([_figure(bias, evidence) for bias in found]),
        _lengths(found, evidence),
    )
    groups = _groups(found)
    if groups is not None:
        section.add(groups)
    for bias in found:
        for column, follows in bias.columns.items():
            for trait, value in follows.traits.items():
                section.measured(bias.rater, f"{column} scores and {trait}", _or_none(value), n=follows.samples)
            if column not in ("raw", PREDICTED):
                for name, value in zip(("", ", given length"), follows.raw, strict=True):
                    section.measured(bias.rater, f"{column} and raw scores{name}", _or_none(value), n=follows.samples)
    return section


def _of(rater: Curated, evidence: Evidence) -> Bias | None:
    rows = _some(np.flatnonzero((rater.raw >= 0) & (rater.score >= 0)))
    if len(rows) < 3:
        return None
    traits, raw = _traits(rows, evidence), ranks.ranked(rater.raw[rows])
    bias = Bias(rater.rater)
    bias.columns["raw"] = _follows(raw, raw, traits)
    bias.columns["curated"] = _follows(ranks.ranked(rater.score[rows]), raw, traits)
    score = rater.score[rows].astype(np.float32)
    mean = np.where(np.isnan(rater.mean[rows]), score, rater.mean[rows])
    if (mean != score).any():
        bias.columns["mean"] = _follows(ranks.ranked(mean), raw, traits)
    rows = _some(np.flatnonzero((rater.raw < 0) & ((rater.score >= 0) | np.isfinite(rater.mean))))
    if len(rows) >= _FEWEST:
        predicted = np.where(np.isnan(rater.mean[rows]), rater.score[rows], rater.mean[rows])
        bias.columns[PREDICTED] = _follows(ranks.ranked(predicted), np.full(len(rows), np.nan), _traits(rows, evidence))
    return bias


def _some(rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """The rows, or `_MOST` of them."""
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
    """Codes 0.. with small groups made one; None where that leaves less than two groups worth the name."""
    sizes = np.bincount(codes)
    large = sizes >= _SMALL
    if large.sum() < 2:
        return None
    place = np.where(large, np.cumsum(large) - 1, large.sum())
    return np.unique(place[codes], return_inverse=True)[1].astype(np.int64)


def _follows(scores: NDArray[np.float64], raw: NDArray[np.float64], traits: Traits) -> Follows:
    answer = traits.answer
    return Follows(
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
    """Where languages come from, and which there are."""
    samples = evidence.samples
    sizes = np.bincount(samples.language, minlength=len(samples.languages))
    named = [
        f"{name} {percent(int(size), len(samples))}"
        for name, size in list(zip(samples.languages, sizes, strict=True))[:_LANGUAGES]
    ]
    more = len(samples.languages) - len(named)
    said = listed([*named, *([f"{more} more"] if more > 0 else [])])
    if samples.language_field:
        return f"Languages are those of the pool's field '{samples.language_field}': {said}."
    if (sizes >= _SMALL).sum() < 2:
        return f"The pool names no languages, and (next to) all its samples are in one script: {said}."
    return f"The pool names no languages: the script of most of a sample's letters stands for them ({said})."


def _lead(found: Sequence[Bias]) -> str:
    """Whether any column of scores follows a trait much more than the ratings do."""
    checked = [bias for bias in found if bias.columns["raw"].samples >= _FEWEST]
    if not checked:
        return f"Fewer than {_FEWEST} samples have scores: too few to tell what they follow."
    stronger = [bias.rater for bias in checked if bias.stronger]
    if stronger:
        return f"Curated scores follow length, source or language much more than the ratings do: {listed(stronger)}."
    first = checked[0].columns
    before, after = (decimal(first[name].lengths[_ANSWER]) for name in ("raw", "curated"))
    return (
        "Curation made no scores follow length, source or language much more than the ratings do "
        f"(by {STRONGER} or more). {checked[0].rater}'s correlate with the answer's length by {before} as rated and "
        f"{after} curated."
    )


def _in_short(bias: Bias) -> str:
    """The trait that gained most, for the headline."""
    trait, (column, before, after) = max(bias.stronger.items(), key=lambda item: abs(item[1][2]) - abs(item[1][1]))
    return (
        f"Curation made the scores of {bias.rater} follow {_words(trait)} more ({_column(column)} "
        f"{decimal(after)}, raw {decimal(before)})."
    )


def _warning(bias: Bias) -> str:
    by_column: dict[str, list[str]] = {}
    for trait, (column, before, after) in bias.stronger.items():
        by_column.setdefault(column, []).append(f"{_words(trait)} ({decimal(after)}, raw {decimal(before)})")
    said = listed([f"the {_column(column)} follow {listed(traits)}" for column, traits in by_column.items()])
    return (
        f"{bias.rater}: {said} much more than the raw scores do. Less noise makes any true relation stronger, but "
        "seldom by so much: compare curated scores with human grades, or look at the subset's lengths and sources, "
        "before you trust a ranking by them."
    )


def _words(trait: str) -> str:
    return trait.replace(", given length", " even at equal length")


def _column(name: str) -> str:
    return "posterior means" if name == "mean" else f"{name} scores"


def _figure(bias: Bias, evidence: Evidence) -> Figure:
    raw, curated = (bias.columns[name].traits for name in ("raw", "curated"))
    said = "; ".join(f"{trait} {decimal(raw[trait])} to {decimal(curated[trait])}" for trait in raw)
    return Figure(
        f"bias-{evidence.rater_slugs[bias.rater]}",
        f"{bias.rater}: what scores follow",
        f"Dots of correlations with raw and with curated scores: {said}.",
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
        for name, follows in bias.columns.items():
            cells: list[Cell | str] = [
                _cell(follows.lengths[trait], raw.lengths[trait], bias) for trait in (_ANSWER, _WHOLE)
            ]
            beside = [DASH, DASH] if name == "raw" else [decimal(_or_none(value)) for value in follows.raw]
            rows.append([f"{bias.rater}, {name}", *cells, *beside, count(follows.samples)])
    note = "In colour: much stronger than in the raw scores."
    field, known = evidence.settings.truth, np.flatnonzero(evidence.truth >= 0)
    if field is not None and len(known) >= 3:
        some = _some(known)
        truth = ranks.ranked(evidence.truth[some])
        traits = [ranks.ranked(lengths[some]) for lengths in (evidence.samples.answer, evidence.samples.length)]
        follow = [decimal(_or_none(ranks.correlation(truth, trait))) for trait in traits]
        rows.append([f"the truth, '{field}'", *follow, DASH, DASH, count(len(some))])
        note += f" Where '{field}' itself follows length, scores should."
    columns = ["scores", _ANSWER, _WHOLE, "raw scores", given("raw scores"), "samples"]
    return Table("Rank correlation of scores with length", columns, rows, note=note)


def _groups(found: Sequence[Bias]) -> Table | None:
    kinds = list(dict.fromkeys(kind for bias in found for kind in bias.columns["raw"].groups))
    if not kinds:
        return None
    rows: list[list[Cell | str]] = []
    for bias in found:
        raw = bias.columns["raw"].groups
        for name, follows in bias.columns.items():
            cells: list[Cell | str] = []
            for kind in kinds:
                if kind in follows.groups and kind in raw:
                    cells += [_cell(follows.groups[kind][i], raw[kind][i], bias) for i in (0, 1)]
                    cells.append(Cell(decimal(follows.by_chance[kind]), "muted"))
                else:
                    cells += [DASH] * 3
            rows.append([f"{bias.rater}, {name}", *cells])
    columns = [column for kind in kinds for column in (kind, given(kind), f"{kind}, by chance")]
    note = f"Sources and languages of fewer than {_SMALL} samples are counted together as {_OTHERS}."
    return Table("Correlation ratio of scores with groups", ["scores", *columns], rows, note=note)


def _cell(value: float, raw: float, bias: Bias) -> Cell:
    tone: Tone = "bad" if bias.much(value, raw) else ""
    return Cell(decimal(_or_none(value)), tone)


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None
