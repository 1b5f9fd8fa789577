"""What the joint model found, what it rests on, and how its result depends on what the data do not settle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tamis.reporting.blocks import Cell, Section, Table, Text, Tone
from tamis.reporting.diagnoses import Case
from tamis.reporting.numbers import DASH, count, decimal, percent, signed, span
from tamis.reporting.raters import Curated
from tamis.reporting.sections import checked
from tamis.reporting.sections.shared import number, scalars

_UNLIKELY = 0.01  # plausibility below which a case is overlooked
_LIKELIER = 1.5  # times the mean plausibility, from which the most plausible case is worth a word
_COLUMNS = {  # what a column, by a part of its name, holds
    "own share": "Own share: samples whose true class is their own and not their neighbourhood's.",
    "shared errors": "Shared errors: samples that models together see as another class than the true one; one rater "
    "alone cannot tell it.",
    "weight": "Weights: how much neighbours and a regression on the embedding count as evidence.",
    "gain": "Gain: how much better ratings are told with that evidence than without, in log likelihood with its "
    "standard error; about 0 where it says nothing.",
}


def found(raters: Sequence[Curated]) -> Table | None:
    """Own share, shared errors, weights of the evidence; only the columns of which anything is known."""
    columns = ["rater", "assumes", "own share", "95 % interval", "shared errors", "weight of neighbours"]
    columns += ["weight of regression", "explained variance", "gain per rating"]
    rows = []
    for rater in raters:
        told, own = rater.told, rater.told.own_share
        weights = [decimal(told.weights.get(name)) for name in ("neighbors", "regression")]
        gain = DASH
        if told.gain is not None:
            gain = signed(told.gain, 3) + (f" ± {decimal(told.gain_error, 3)}" if told.gain_error is not None else "")
        rows.append(
            [
                rater.rater,
                told.assume or DASH,
                percent(own.value, digits=0) if own else DASH,
                span(100 * own.low, 100 * own.high, 0) + "\N{NO-BREAK SPACE}%" if own and own.known else DASH,
                percent(told.shared_errors, digits=0),
                *weights,
                percent(told.explained_variance, digits=0),
                gain,
            ]
        )
    used = [i for i in range(len(columns)) if i == 0 or any(row[i] != DASH for row in rows)]
    # Curations by other models have the likelihoods alone, which their own warnings judge.
    if not any(r.told.own_share or r.told.assume or r.told.weights or r.told.shared_errors is not None for r in raters):
        return None
    names = [columns[i] for i in used]
    note = " ".join(text for column, text in _COLUMNS.items() if any(column in name for name in names))
    return Table("What the model found", names, [[row[i] for i in used] for row in rows], words=("assumes",), note=note)


def grades(raters: Sequence[Curated]) -> Table | None:
    """What is known of the human grades, which are the same for all raters."""
    told = next((rater.told.grades for rater in raters if rater.told.grades), {})
    agreement = told.get("agreement")
    if isinstance(agreement, Mapping) and not agreement.get("pairs", 1):  # one grader agrees with nobody
        told = {name: value for name, value in told.items() if name != "agreement"}
    given = {name: value for name, value in scalars(told).items() if value or name == "graded"}
    if not given:
        return None
    note = "Krippendorff's alpha: 1 where graders agree, 0 where they do so by chance." if _alpha(given) else ""
    return Table("Human grades", ["of the grades", "result"], [[k, number(v)] for k, v in given.items()], note=note)


def _alpha(given: dict[str, object]) -> bool:
    return any("alpha" in name for name in given)


def predicted(raters: Sequence[Curated]) -> list[Text | Table]:
    """How many scores were predicted, and how far predictions of hidden ratings are off."""
    told = [(rater.rater, rater.told.predicted) for rater in raters if rater.told.predicted is not None]
    rows, sentences = [], []
    for name, part in told:
        if part is None or not part.unrated:
            continue
        rows.append(
            [
                name,
                count(part.rated),
                count(part.unrated),
                percent(part.unrated, part.rated + part.unrated),
                decimal(part.correlation),
                decimal(part.error),
            ]
        )
        said = f"{name} rated {count(part.rated)} samples; the scores of {count(part.unrated)} are predicted"
        if part.correlation is not None:
            said += f" (predictions of ratings that were hidden correlate with them by {decimal(part.correlation)}"
            said += f", mean error {decimal(part.error)} classes)" if part.error is not None else ")"
        sentences.append(f"{said}.")
    if not rows:
        return []
    note = (
        "Held-out: rated samples whose ratings were hidden and predicted like those of the unrated. It says how well "
        "the rater is predicted, not how right the rater is."
    )
    columns = ["rater", "rated", "predicted", "share predicted", "held-out correlation", "held-out mean error"]
    return [Text(" ".join(sentences), lead=True), Table("Predicted scores", columns, rows, note=note)]


def why(rater: Curated, lead: str) -> list[Text]:
    """Why scores were corrected cautiously and what would settle it, as far as `lead` does not say so."""
    told, said = rater.told, []
    if told.reasons and told.explained is not False:
        said.append(f"Corrected cautiously: {'; '.join(told.reasons)}.")
    if told.advice and (settled := checked.settled(told.advice)) not in lead:
        said.append(settled)
    return [Text(" ".join(said))] if said else []


def sensitivity(rater: Curated) -> Table | None:
    """The result at one own share and another."""
    cases = rater.told.cases
    if not cases:
        return None
    rows = [_row(case) for case in cases]
    if len(cases) > 1 and rater.told.explained is not False:  # else nothing was corrected, whatever the model expects
        whole = [rater.told.expected(name) for name in ("right_raw", "right", "error_raw", "error")]
        values = [*(percent(v) for v in whole[:2]), *(decimal(v) for v in whole[2:])]
        rows.append(["all, by plausibility", DASH, count(rater.corrected), *values])
    likely = max(cases, key=lambda case: case.plausibility)
    harm = [c for c in cases if c.plausibility >= _UNLIKELY and _worse(c.right_raw, c.right, 1)]
    note = (
        "Own share: samples whose true class differs from their neighbourhood's. Ratings alone say little about it, so "
        "the model weighs every value by how plausible it is. A line says how many ratings would be corrected if that "
        "were the share, and how right the scores would be. "
    )
    if likely.plausibility * len(cases) >= _LIKELIER * sum(case.plausibility for case in cases):
        note += f"Most plausible: {percent(likely.own_share, digits=0)}. "
    elif len(cases) > 1:
        note += "No share is much more plausible than the others: what is known does not tell it. "
    note += (
        f"At {', '.join(percent(c.own_share, digits=0) for c in harm)} fewer scores would be right than as rated."
        if harm
        else "At no plausible share would fewer scores be right than as rated."
    )
    columns = ["own share", "plausibility", "corrected", "right, raw", "right, curated", "mean error, raw"]
    return Table("How the result depends on the own share", [*columns, "mean error, curated"], rows, note=note)


def measure(section: Section, rater: Curated) -> None:
    """What the model found, for `results.csv`."""
    told, name = rater.told, rater.rater
    if told.own_share is not None:
        interval = told.own_share.interval if told.own_share.known else None
        section.measured(name, "own share", told.own_share.value, interval=interval)
    if told.shared_errors is not None:
        section.measured(name, "shared errors", told.shared_errors)
    if told.predicted is not None:
        n = told.predicted.rated
        section.measured(name, "scores predicted", told.predicted.unrated)
        section.measured(name, "held-out correlation of predictions", told.predicted.correlation, n=n)
        section.measured(name, "held-out mean error of predictions", told.predicted.error, n=n)
    for case in told.cases:
        at = f"at own share {case.own_share:g}"
        section.measured(name, f"plausibility {at}", case.plausibility)
        for measure, value in (
            ("corrected", case.corrected),
            ("raw right, expected,", case.right_raw),
            ("curated right, expected,", case.right),
            ("raw mean absolute error, expected,", case.error_raw),
            ("curated mean absolute error, expected,", case.error),
        ):
            section.measured(name, f"{measure} {at}", value)


def _row(case: Case) -> list[Cell | str]:
    tone: Tone = "muted" if case.plausibility < _UNLIKELY else ""
    plain = [
        percent(case.own_share, digits=0),
        percent(case.plausibility, digits=0 if case.plausibility >= _UNLIKELY else 1),
        count(case.corrected),
        percent(case.right_raw),
    ]
    return [
        *(Cell(text, tone) for text in plain),
        Cell(percent(case.right), "bad" if not tone and _worse(case.right_raw, case.right, 1) else tone),
        Cell(decimal(case.error_raw), tone),
        Cell(decimal(case.error), "bad" if not tone and _worse(case.error_raw, case.error, -1) else tone),
    ]


def _worse(raw: float | None, curated: float | None, better: int) -> bool:
    """Whether curation loses by more than rounding."""
    return raw is not None and curated is not None and (raw - curated) * better > 0.0005
