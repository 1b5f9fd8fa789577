"""Wins, ties and losses against an opponent, and the judge's own biases."""

from __future__ import annotations

from math import sqrt
from statistics import fmean, stdev
from typing import Any

import numpy as np

from tamis.core.failures import Failure
from tamis.core.families import of_one_family
from tamis.reporting import reference
from tamis.reporting.blocks import (
    Block,
    Cell,
    Details,
    Figure,
    Figures,
    KeyFigure,
    Section,
    Table,
    Text,
    Tone,
    Warnings,
)
from tamis.reporting.charts import dots, stacked
from tamis.reporting.evidence import Evidence
from tamis.reporting.experiment import Group
from tamis.reporting.judgements import Example, Judgement, Outcome
from tamis.reporting.numbers import DASH, clipped, count, decimal, listed, percent, plural, printable, signed

_SHOWN, _REASON = 400, 300  # characters of an answer, and of a failure's reason
_BIASED = 0.1  # distance from a half above which a length bias of the judge causes a warning
_ENDED = {"win": "won", "lose": "lost", "tie": "tied", "flip": "tied: opposite winners in the two orders"}


def build(evidence: Evidence) -> Section:
    """Bars and intervals, a table of biases, the paper's figures, examples, what was not judged."""
    section = Section("judging", "Judging")
    judgements = evidence.judgements
    if not judgements:
        if evidence.unjudged:
            section.add(Text("No model could be judged.", lead=True))
    else:
        _compare(judgements, evidence, section)
    if evidence.unjudged:
        section.add(_failures(evidence.unjudged))
    return section


def _compare(judgements: list[Judgement], evidence: Evidence, section: Section) -> None:
    groups = {cell.name: group for group in evidence.groups for cell in group.cells}
    section.sentence = _sentence(judgements, section)
    section.add(
        Text(section.sentence, lead=True),
        Text(
            "A judge read both answers to every prompt in both orders. Opposite winners count as a tie; if one order "
            f"is a tie, the winner of the other order counts. The {_confidence(judgements)} intervals come from a "
            "bootstrap over the prompts; they do not cover the training seed or the choice of the judge."
        ),
    )
    warnings = _warnings(judgements, groups, evidence)
    if warnings:
        section.add(Warnings(warnings))
    section.add(Figures([_bars(judgements), _nets(judgements)]), _shares(judgements), _biases(judgements))
    for made in (_over_seeds(judgements, groups), _published(judgements, groups, evidence), _by_set(judgements)):
        if made is not None:
            section.add(made)
    section.add(*_examples(judgements), *_lost(judgements))
    for judgement in judgements:
        _measured(judgement, section)


def _sentence(judgements: list[Judgement], section: Section) -> str:
    best = max(judgements, key=lambda judgement: (judgement.net.value, judgement.name))
    others = len(judgements) - 1
    among = f" (the best of {len(judgements)} models; the interval does not allow for that choice)" if others else ""
    value, low, high = (_signed(part) for part in (best.net.value, best.net.low, best.net.high))
    said = (
        f"Judged by {best.judge} on {plural(best.judged, 'prompt')}, {best.name} won {percent(best.win.value)}, tied "
        f"{percent(best.tie.value)} and lost {percent(best.lose.value)} against {best.against}{among}: net {value} "
        f"points ({_confidence([best])} interval {low} to {high})"
    )
    section.key_figures.append(KeyFigure(value, f"points net, {best.name} against {best.against}"))
    if best.net.low <= 0 <= best.net.high:
        return f"{said}, so neither is shown to be better."
    lead = "a lead" if best.net.value > 0 else "a deficit"
    return f"{said}, {lead} that the choice of prompts does not explain."


def _confidence(judgements: list[Judgement]) -> str:
    found = {judgement.artifact.manifest.config.get("confidence", 0.95) for judgement in judgements}
    return listed([percent(share, digits=0) for share in sorted(found)])


def _warnings(judgements: list[Judgement], groups: dict[str, Group], evidence: Evidence) -> list[str]:
    raters = {ratings.rater: _model_of(ratings.artifact.manifest.config) for ratings in evidence.ratings}
    said: list[str] = []
    for judgement in judgements:
        group = groups.get(judgement.name)
        said += [f"{warning[0].upper()}{warning[1:]}." for warning in judgement.facts.get("warnings", [])]
        if group is not None and group.rater:
            family = of_one_family(judgement.judge, raters.get(group.rater) or group.rater)
            if family is not None:
                said.append(
                    f"The judge {judgement.judge} and the rater {group.rater} are of the same family ({family}): the "
                    "model was trained on data that a relative of the judge chose."
                )
        longer = judgement.facts["longer_wins"]
        if longer is not None and _stands_out(longer, judgement.facts["unequal"]):
            said.append(
                f"{judgement.name}: when one answer won, it was the {'longer' if longer > 0.5 else 'shorter'} one in "
                f"{percent(max(longer, 1 - longer))} of the prompts, which may be a length bias of the judge."
            )
        if judgement.facts["not_judged"]:
            said.append(
                f"{judgement.name}: {count(judgement.facts['not_judged'])} of "
                f"{plural(judgement.facts['prompts'], 'prompt')} could not be judged and are excluded; the reasons "
                "are below."
            )
    return list(dict.fromkeys(said))


def _stands_out(share: float, n: int) -> bool:
    """Whether a share is far from a half, and by more than two standard errors of `n` draws."""
    return abs(share - 0.5) > max(_BIASED, 1 / sqrt(n))


def _model_of(config: dict[str, object]) -> str:
    backend = config.get("backend")
    return str(backend.get("model") or "") if isinstance(backend, dict) else ""


def _bars(judgements: list[Judgement]) -> Figure:
    shares = np.array([[one.win.value, one.tie.value, one.lose.value] for one in judgements])
    said = "; ".join(
        f"{one.name} {percent(one.win.value)} won, {percent(one.tie.value)} tied, {percent(one.lose.value)} lost"
        for one in judgements
    )
    return Figure(
        "judging-shares",
        f"Against {listed(list(dict.fromkeys(one.against for one in judgements)))}, percent of the prompts",
        f"Bars cut into won, tied and lost: {said}.",
        stacked([one.name for one in judgements], shares, ["win", "tie", "lose"], ["accent", "s1", "raw"]),
        height=70 + 30 * len(judgements),
    )


def _nets(judgements: list[Judgement]) -> Figure:
    nets = [one.net for one in judgements]
    said = "; ".join(f"{one.name} {_net(one.net)}" for one in judgements)
    return Figure(
        "judging-net",
        "Win minus lose, percent of the prompts",
        f"Dots with intervals: {said}.",
        dots(
            [one.name for one in judgements],
            [net.value for net in nets],
            [net.low for net in nets],
            [net.high for net in nets],
            x="points",
            reference=0.0,
            highlighted=range(len(nets)),
            percent=True,
        ),
        height=62 + 28 * len(nets),
    )


def _signed(share: float) -> str:
    return signed(100 * share, 1)


def _net(net: Outcome) -> str:
    return f"{_signed(net.value)} ({_signed(net.low)} to {_signed(net.high)})"


def _share(share: Outcome) -> Cell:
    low, high = decimal(100 * share.low, 1), decimal(100 * share.high, 1)
    return Cell(f"{decimal(100 * share.value, 1)} ({low} to {high})")


def _shares(judgements: list[Judgement]) -> Table:
    rows: list[list[Cell | str]] = [
        [
            one.name,
            one.against,
            count(one.judged),
            *(_share(share) for share in (one.win, one.tie, one.lose)),
            Cell(_net(one.net), _tone(one.net)),
        ]
        for one in judgements
    ]
    return Table(
        "Win, tie, lose",
        ["model", "against", "prompts", "win", "tie", "lose", "net"],
        rows,
        words=("against",),
        note="In percent of the judged prompts, with intervals. Net is win minus lose; AlpaGasus's winning score is "
        "1 + net / 100. Coloured: the interval excludes 0, row by row.",
    )


def _tone(net: Outcome) -> Tone:
    return "good" if net.low > 0 else "bad" if net.high < 0 else ""


def _biases(judgements: list[Judgement]) -> Table:
    rows = []
    for one in judgements:
        facts = one.facts
        ours, theirs = facts["mean_lengths"]
        rows.append(
            [
                one.name,
                one.judge,
                percent(facts["flips"]),
                percent(facts["first_preferred"]),
                percent(facts["longer_wins"]),
                decimal(facts["length_correlation"]),
                count(ours),
                count(theirs),
            ]
        )
    return Table(
        "Biases of the judge",
        ["model", "judge", "flips", "first preferred", "longer won", "length correlation", "length", "opponent's"],
        rows,
        words=("judge",),
        note="Flips: prompts with opposite winners in the two orders. First preferred: share of the verdicts with a "
        "winner that chose the answer shown first; 50 % is no bias. Longer won: share of the prompts with a winner in "
        "which the longer answer won. Length correlation: between the result and the log ratio of the lengths; 0 is "
        "none. Lengths: means in characters.",
    )


def _over_seeds(judgements: list[Judgement], groups: dict[str, Group]) -> Table | None:
    """Means over cells that differ only in their seeds, if there are any."""
    found: dict[int, tuple[Group, list[Judgement]]] = {}
    for one in judgements:
        if (group := groups.get(one.name)) is not None:
            found.setdefault(id(group), (group, []))[1].append(one)
    rows: list[list[Cell | str]] = []
    for group, of_group in found.values():
        if len(group.cells) > 1:
            nets = [one.net.value for one in of_group]
            spread = f" ± {decimal(100 * stdev(nets), 1)}" if len(nets) > 1 else ""
            means = [fmean(getattr(one, name).value for one in of_group) for name in ("win", "tie", "lose")]
            seeds = count(len(nets)) if len(nets) == len(group.cells) else f"{len(nets)} of {len(group.cells)}"
            rows.append(
                [
                    group.label,
                    group.rater or DASH,
                    DASH if group.size is None else count(group.size),
                    group.model.rstrip("/").rsplit("/", 1)[-1] or DASH,
                    seeds,
                    *(decimal(100 * mean, 1) for mean in means),
                    f"{_signed(fmean(nets))}{spread}",
                ]
            )
    if not rows:
        return None
    return Table(
        "Over seeds",
        ["strategy", "rater", "samples", "base model", "seeds", "win", "tie", "lose", "net"],
        rows,
        words=("rater", "base model"),
        note="Means over seeds, ± the standard deviation of the net share (n - 1). Seeds that were not judged are "
        "excluded.",
    )


def _published(judgements: list[Judgement], groups: dict[str, Group], evidence: Evidence) -> Table | None:
    """The paper's figures next to ours, if the run has the paper's cells and its opponent."""
    raters = {ratings.rater: _model_of(ratings.artifact.manifest.config) for ratings in evidence.ratings}
    rows: list[list[Cell | str]] = []
    for one in judgements:
        group = groups.get(one.name)
        theirs = reference.published_judging(group, raters, (one.against, one.opponent)) if group else {}
        if theirs:
            pairs = [(getattr(one, name).value, theirs[name]) for name in ("win", "tie", "lose")]
            cells = [
                cell
                for ours, paper in pairs
                for cell in (Cell(decimal(100 * ours, 1)), Cell(decimal(100 * paper, 1), "muted"))
            ]
            rows.append([one.name, one.against, *cells])
    if not rows:
        return None
    return Table(
        "Compared with the paper's figures against LIMA",
        ["model", "against", *(name for one in ("win", "tie", "lose") for name in (one, f"{one}, paper"))],
        rows,
        words=("against",),
        note=f"Columns marked “paper” are figures from {reference.paper()} for the same base model, rater and size, "
        "not results of this run. The paper's judge was GPT-4o-mini; the judge's prompt, and how the two orders were "
        "combined, are not published.",
    )


def _by_set(judgements: list[Judgement]) -> Table | None:
    sets = list(dict.fromkeys(name for one in judgements for name in one.facts["sets"]))
    if len(sets) < 2:
        return None
    rows: list[list[Cell | str]] = []
    for one in judgements:
        found = [one.facts["sets"].get(name) for name in sets]
        rows.append(
            [
                one.name,
                *(
                    DASH
                    if share is None
                    else Cell(_signed(share["net"]), title=f"{count(share['n'])} prompts, win {percent(share['win'])}")
                    for share in found
                ),
            ]
        )
    return Table("Net by prompt set", ["model", *sets], rows, note="Win minus lose in percent of the set's prompts.")


def _examples(judgements: list[Judgement]) -> list[Block]:
    made: list[Block] = []
    for one in judgements:
        if one.examples:
            text = "\n\n".join(_as_text(example, one) for example in one.examples)
            made.append(Details(f"{plural(len(one.examples), 'judged prompt')} of {one.name}", text))
    return made


def _as_text(example: Example, judgement: Judgement) -> str:
    names = {"model": judgement.name, "against": judgement.against, "tie": "a tie"}
    texts = zip((judgement.name, judgement.against), example.answers, strict=True)
    said = ", ".join(
        f"shown {place}: {names[verdict]}{scores}"
        for place, (verdict, scores) in zip(("first", "second"), example.said, strict=True)
    )
    lines = [
        f"prompt: {clipped(example.prompt, _SHOWN)}",
        *(f"{name}: {clipped(text, _SHOWN) or '(no text)'}" for name, text in texts),
        printable(f"{judgement.name} {_ENDED[example.kind]}; {said}"),
    ]
    return "\n".join(lines)


def _lost(judgements: list[Judgement]) -> list[Table]:
    rows: list[list[Cell | str]] = [
        [one.name, Cell(clipped(reason, _REASON), title=reason), count(number)]
        for one in judgements
        for reason, number in sorted(one.facts["reasons"].items(), key=lambda item: (-item[1], item[0]))
    ]
    if not rows:
        return []
    return [
        Table(
            "Prompts that were not judged",
            ["model", "reason", "prompts"],
            rows,
            words=("reason",),
            note="They are excluded from all shares and never counted as ties or losses.",
        )
    ]


def _failures(failed: list[Failure]) -> Table:
    rows: list[list[Cell | str]] = [
        [failure.name, Cell(clipped(failure.reason, _REASON), title=failure.reason)] for failure in failed
    ]
    return Table("Models without a judgement", ["model", "reason"], rows, words=("reason",))


def _measured(one: Judgement, section: Section) -> None:
    subject, facts = f"{one.name} against {one.against}", one.facts
    for name in ("win", "tie", "lose", "net"):
        share: Outcome = getattr(one, name)
        section.measured(subject, name, share.value, interval=(share.low, share.high), n=one.judged)
    for name in ("flips", "first_preferred", "longer_wins", "length_correlation"):
        section.measured(subject, name.replace("_", " "), facts[name], n=one.judged)
    for name, length in zip(("mean length", "mean length of the opponent"), facts["mean_lengths"], strict=True):
        section.measured(subject, name, length, n=one.judged)
    section.measured(subject, "prompts not judged", facts["not_judged"], n=facts["prompts"])
    sets: dict[str, dict[str, Any]] = facts["sets"] if len(facts["sets"]) > 1 else {}
    for name, of_set in sets.items():
        low, high = of_set["intervals"]["net"]
        section.measured(subject, f"net, {name}", of_set["net"], interval=(low, high), n=of_set["n"])
