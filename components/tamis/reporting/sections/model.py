"""What the joint model found, its evidence, and how its result depends on what the data leave open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tamis.reporting.blocks import Cell, Section, Table, Text, Tone
from tamis.reporting.diagnoses import Case
from tamis.reporting.numbers import DASH, count, decimal, percent, signed, span
from tamis.reporting.raters import Curated
from tamis.reporting.sections import checked
from tamis.reporting.sections.shared import number, scalars

_UNLIKELY = 0.01  # cases with a lower plausibility are ignored
_LIKELIER = 1.5  # times the mean plausibility: from here on the most plausible case is named
_COLUMNS = {  # explanations of the columns, by a part of their names
    "own share": "Own share: the share of samples whose true class is not that of their neighbourhood.",
    "shared errors": "Shared errors: the share of samples in which all models see another class than the true one; "
    "a single rater cannot show it.",
    "weight": "Weights: how much neighbours and a regression on the embedding count as evidence.",
    "gain": "Gain: how much this evidence improves the prediction of a rating, in log likelihood with its standard "
    "error; about 0 if it carries no information.",
}


def found(raters: Sequence[Curated]) -> Table | None:
    """Own share, shared errors and weights of the evidence; only columns with a known value."""
    columns = ["rater", "assumes", "own share", "95 % interval", "shared errors", "weight of neighbours"]
    columns += ["weight of regression", "explained variance", "gain per rating"]
    rows = []
    for rater in raters:
        findings, own = rater.findings, rater.findings.own_share
        weights = [decimal(findings.weights.get(name)) for name in ("neighbors", "regression")]
        gain = DASH
        if findings.gain is not None:
            gain = signed(findings.gain, 3) + (
                f" ± {decimal(findings.gain_error, 3)}" if findings.gain_error is not None else ""
            )
        rows.append(
            [
                rater.rater,
                findings.assume or DASH,
                percent(own.value, digits=0) if own else DASH,
                span(100 * own.low, 100 * own.high, 0) + "\N{NO-BREAK SPACE}%" if own and own.known else DASH,
                percent(findings.shared_errors, digits=0),
                *weights,
                percent(findings.explained_variance, digits=0),
                gain,
            ]
        )
    used = [i for i in range(len(columns)) if i == 0 or any(row[i] != DASH for row in rows)]
    # Curations by other models have only the likelihoods, which their own warnings cover.
    if not any(
        r.findings.own_share or r.findings.assume or r.findings.weights or r.findings.shared_errors is not None
        for r in raters
    ):
        return None
    names = [columns[i] for i in used]
    note = " ".join(text for column, text in _COLUMNS.items() if any(column in name for name in names))
    return Table("What the model found", names, [[row[i] for i in used] for row in rows], words=("assumes",), note=note)


def grades(raters: Sequence[Curated]) -> Table | None:
    """Facts about the human grades, which are the same for all raters."""
    findings = next((rater.findings.grades for rater in raters if rater.findings.grades), {})
    agreement = findings.get("agreement")
    if isinstance(agreement, Mapping) and not agreement.get("pairs", 1):  # no sample has two grades
        findings = {name: value for name, value in findings.items() if name != "agreement"}
    given = {name: value for name, value in scalars(findings).items() if value or name == "graded"}
    if not given:
        return None
    note = (
        "Krippendorff's alpha: 1 is full agreement of the graders, 0 is agreement by chance." if _alpha(given) else ""
    )
    return Table("Human grades", ["figure", "value"], [[k, number(v)] for k, v in given.items()], note=note)


def _alpha(given: dict[str, object]) -> bool:
    return any("alpha" in name for name in given)


def predicted(raters: Sequence[Curated]) -> list[Text | Table]:
    """The number of predicted scores, and the errors of predictions of held-out ratings."""
    findings = [(rater.rater, rater.findings.predicted) for rater in raters if rater.findings.predicted is not None]
    rows, sentences = [], []
    for name, part in findings:
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
            said += f" (predictions of held-out ratings correlate with them by {decimal(part.correlation)}"
            said += f", mean error {decimal(part.error)} classes)" if part.error is not None else ")"
        sentences.append(f"{said}.")
    if not rows:
        return []
    note = (
        "Held-out: the ratings of rated samples were hidden and predicted like those of unrated samples. The figures "
        "say how well the rater is predicted, not how often the rater is right."
    )
    columns = ["rater", "rated", "predicted", "share predicted", "held-out correlation", "held-out mean error"]
    return [Text(" ".join(sentences), lead=True), Table("Predicted scores", columns, rows, note=note)]


def why(rater: Curated, lead: str) -> list[Text]:
    """Why scores were corrected cautiously and what would help, unless `lead` says so already."""
    findings, said = rater.findings, []
    if findings.reasons and findings.explained is not False:
        said.append(f"Corrected cautiously: {'; '.join(findings.reasons)}.")
    if findings.advice and (settled := checked.settled(findings.advice)) not in lead:
        said.append(settled)
    return [Text(" ".join(said))] if said else []


def sensitivity(rater: Curated) -> Table | None:
    """The results at the possible own shares."""
    cases = rater.findings.cases
    if not cases:
        return None
    rows = [_row(case) for case in cases]
    if (
        len(cases) > 1 and rater.findings.explained is not False
    ):  # else nothing was corrected, whatever the model expects
        whole = [rater.findings.expected(name) for name in ("right_raw", "right", "error_raw", "error")]
        values = [*(percent(v) for v in whole[:2]), *(decimal(v) for v in whole[2:])]
        rows.append(["all, weighted by plausibility", DASH, count(rater.corrected), *values])
    likely = max(cases, key=lambda case: case.plausibility)
    harm = [c for c in cases if c.plausibility >= _UNLIKELY and _worse(c.right_raw, c.right, 1)]
    note = (
        "Own share: the share of samples whose true class differs from that of their neighbourhood. Ratings alone say "
        "little about it, so the model weights each value by its plausibility. Each row shows how many ratings would "
        "be corrected if this were the share, and how many scores would be right. "
    )
    if likely.plausibility * len(cases) >= _LIKELIER * sum(case.plausibility for case in cases):
        note += f"Most plausible: {percent(likely.own_share, digits=0)}. "
    elif len(cases) > 1:
        note += "No share is much more plausible than the others: the data do not determine it. "
    note += (
        f"At {', '.join(percent(c.own_share, digits=0) for c in harm)}, curation would lower the share of right scores."
        if harm
        else "At no plausible share would curation lower the share of right scores."
    )
    columns = ["own share", "plausibility", "corrected", "right, raw", "right, curated", "mean error, raw"]
    return Table("How the result depends on the own share", [*columns, "mean error, curated"], rows, note=note)


def measure(section: Section, rater: Curated) -> None:
    """What the model found, for `results.csv`."""
    findings, name = rater.findings, rater.rater
    if findings.own_share is not None:
        interval = findings.own_share.interval if findings.own_share.known else None
        section.measured(name, "own share", findings.own_share.value, interval=interval)
    if findings.shared_errors is not None:
        section.measured(name, "shared errors", findings.shared_errors)
    if findings.predicted is not None:
        n = findings.predicted.rated
        section.measured(name, "scores predicted", findings.predicted.unrated)
        section.measured(name, "held-out correlation of predictions", findings.predicted.correlation, n=n)
        section.measured(name, "held-out mean error of predictions", findings.predicted.error, n=n)
    for case in findings.cases:
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
    """Whether curation is worse by more than rounding."""
    return raw is not None and curated is not None and (raw - curated) * better > 0.0005
