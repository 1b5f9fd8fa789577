"""The result of a match: the rows of the judgement, and its facts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tamis.core.errors import ModelError
from tamis.core.families import family_of, of_one_family
from tamis.judging.comparison import Comparison, Share, Verdict, compare, outcomes, stands_out
from tamis.judging.match import Match
from tamis.judging.questions import Question
from tamis.judging.records import Judged, Text
from tamis.judging.settings import JudgingSettings

log = logging.getLogger(__name__)
_MOST_FLIPS = 0.5  # share of pairs with opposite winners from which ties say more about the judge than the models
# Maps a verdict on places to a verdict on the model or its opponent, for the first and the second order; and back.
_SEEN: tuple[dict[Verdict, str], ...] = (
    {"first": "model", "second": "against", "tie": "tie"},
    {"first": "against", "second": "model", "tie": "tie"},
)
_PLACED = tuple({seen: placed for placed, seen in order.items()} for order in _SEEN)


def rows_of(
    match: Match, question: Question, written: Sequence[Mapping[str, Text]], verdicts: Mapping[str, Judged]
) -> list[dict[str, Any]]:
    """The two rows of a question."""
    texts = [one[question.id] for one in written]
    common: dict[str, Any] = {"id": question.id, "set": question.set, "prompt": question.text, "attempts": 0}
    for which, text in zip(("model", "against"), texts, strict=True):
        common[f"{which}_answer"] = text.text
        common[f"{which}_length"] = None if text.text is None else len(text.text)
    for contestant, text in zip(match.contestants, texts, strict=True):
        if text.text is None:
            error = f"no answer of {contestant.name}: {text.status}: {text.error}"
            return [common | {"order": order, "status": "no_answer", "error": error} for order in (1, 2)]
    one, other = str(texts[0].text), str(texts[1].text)
    if one == other:
        return [common | {"order": order, "status": "ok", "verdict": "tie"} for order in (1, 2)]
    rows = []
    for order, (key, _) in enumerate(match.shown(question, one, other)):
        found = verdicts[key]
        scores = (found.first, found.second) if order == 0 else (found.second, found.first)
        said = found.model_dump(include={"status", "error", "attempts", "prompt_tokens", "completion_tokens"})
        verdict = None if found.verdict is None else _SEEN[order][found.verdict]
        rows.append(
            common
            | said
            | {"order": order + 1, "verdict": verdict, "model_score": scores[0], "against_score": scores[1]}
        )
    return rows


def facts_of(
    settings: JudgingSettings, questions: Sequence[Question], rows: Sequence[dict[str, Any]], match: Match
) -> dict[str, Any]:
    """The results over all prompts and for each set.

    Raises:
        ModelError: when too many prompts, or all of them, could not be judged.
    """
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    judged = [pair for pair in pairs if _whole(pair)]
    reasons = Counter(_reason(pair) for pair in pairs if not _whole(pair))
    lost = len(pairs) - len(judged)
    if not judged or lost > settings.max_failure_share * len(pairs):
        table = "\n".join(f"  {count:>7}  {reason}" for reason, count in reasons.most_common())
        raise ModelError(
            f"{lost} of {len(pairs)} prompts could not be judged\n{table}",
            allowed=f"at most {settings.max_failure_share:.1%} of the prompts (max_failure_share), and not all",
            action="remove the cause, or raise max_failure_share; finished answers and verdicts stay in the store",
        )
    whole = _compared(settings, judged)
    sets = {
        one.name: [pair for pair in judged if pair[0]["set"] == one.name]
        for one in settings.prompts
        if any(question.set == one.name for question in questions)
    }
    model, against = match.contestants
    judge = settings.judge.backend.model
    return {
        "prompts": len(pairs),
        "judged": len(judged),
        "not_judged": lost,
        "reasons": dict(reasons),
        "identical": sum(pair[0]["attempts"] == 0 for pair in judged),
        **_shares(whole),
        "sets": {name: _shares(_compared(settings, of_set)) for name, of_set in sets.items() if of_set},
        "model": {"name": model.name, "model": model.model, "family": family_of(model.model)},
        "against": {"name": against.name, "model": against.model, "family": family_of(against.model)},
        "judge": {"model": judge, "family": family_of(judge)},
        "warnings": [
            *(
                f"the judge {judge} and {one.name} belong to one model family ({family}): judges favour their own"
                for one in match.contestants
                if (family := of_one_family(judge, one.model))
            ),
            *(f"between {model.name} and {against.name}: {warning}" for warning in _of_the_judge(judge, whole, judged)),
        ],
    }


def _of_the_judge(judge: str, found: Comparison, judged: Sequence[tuple[dict[str, Any], ...]]) -> list[str]:
    """Warnings about the judge itself, where its verdicts show a bias beyond chance."""
    asked = sum(pair[0]["attempts"] > 0 for pair in judged)
    if not asked:
        return []
    if not found.decided:
        return [f"the judge {judge} found no winner in any of {asked} pairs: it may be unable to compare answers"]
    said, first = [], found.first_preferred
    if first is not None and stands_out(first, found.decided):
        place, share = ("first", first) if first > 0.5 else ("second", 1 - first)
        said.append(
            f"of {found.decided} verdicts with a winner, {share:.1%} went to the answer shown {place}: the judge "
            f"{judge} prefers that position. Judging both orders cancels this bias, but causes more ties"
        )
    if (flips := found.flips * found.prompts / asked) >= _MOST_FLIPS:
        said.append(
            f"in {flips:.1%} of the pairs the judge {judge} gave opposite winners in the two orders: most of these "
            "ties come from the judge and say nothing about the models. Try another judge or another prompt"
        )
    return said


def _whole(pair: tuple[dict[str, Any], dict[str, Any]]) -> bool:
    return all(row["status"] == "ok" for row in pair)


def _reason(pair: tuple[dict[str, Any], dict[str, Any]]) -> str:
    """The kind of reason why a prompt was not judged."""
    row = next(row for row in pair if row["status"] != "ok")
    error = str(row["error"] or "no reason given")
    if row["status"] == "no_answer":
        return ":".join(error.split(":")[:3])
    return f"{row['status']}: {error.partition(':')[0]}"


def _compared(settings: JudgingSettings, pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Comparison:
    first, second = ([_PLACED[order][pair[order]["verdict"]] for pair in pairs] for order in (0, 1))
    lengths = np.array([[pair[0]["model_length"], pair[0]["against_length"]] for pair in pairs], dtype=np.int64)
    return compare(outcomes(first, second), lengths, confidence=settings.confidence, seed=settings.seed)


def _shares(found: Comparison) -> dict[str, Any]:
    shares: dict[str, Share] = {name: getattr(found, name) for name in ("win", "tie", "lose", "net")}
    return {
        "n": found.prompts,
        **{name: round(share.value, 6) for name, share in shares.items()},
        "intervals": {name: [round(share.low, 6), round(share.high, 6)] for name, share in shares.items()},
        "flips": round(found.flips, 6),
        "decided": found.decided,
        "first_preferred": _rounded(found.first_preferred),
        "unequal": found.unequal,
        "longer_wins": _rounded(found.longer_wins),
        "length_correlation": _rounded(found.length_correlation),
        "mean_lengths": [round(length, 2) for length in found.mean_lengths],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def log_result(facts: Mapping[str, Any]) -> None:
    """Log the result."""
    low, high = facts["intervals"]["net"]
    log.info(
        "%s against %s, %d prompts: win %.1f %%, tie %.1f %%, lose %.1f %%; net %+.1f (%+.1f to %+.1f), flips %.1f %%",
        facts["model"]["name"],
        facts["against"]["name"],
        facts["judged"],
        *(100 * facts[name] for name in ("win", "tie", "lose", "net")),
        100 * low,
        100 * high,
        100 * facts["flips"],
    )
    for warning in facts["warnings"]:
        log.warning("%s", warning)
    if facts["not_judged"]:
        log.warning(
            "%d of %d prompts could not be judged and are not in the shares: %s",
            facts["not_judged"],
            facts["prompts"],
            facts["reasons"],
        )
