"""Read judgements: how each model did against its opponent, and some of the judged prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tamis.core.artifacts import Artifact

_WANTED = ("win", "lose", "tie", "flip")  # kinds of examples, in the order in which they are shown


@dataclass(frozen=True)
class Outcome:
    """A share of the prompts with its interval, both 0..1; a net share -1..1."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Example:
    """One judged prompt: how it ended, both answers, and the judge's verdict and scores in each order."""

    kind: str
    prompt: str
    answers: tuple[str, str]
    said: tuple[tuple[str, str], tuple[str, str]]


@dataclass(frozen=True)
class Judgement:
    """How a model did against its opponent; the attributes have the names of the manifest's facts."""

    artifact: Artifact
    name: str
    against: str
    opponent: str  # the opponent's model, if known
    judge: str
    win: Outcome
    tie: Outcome
    lose: Outcome
    net: Outcome
    facts: dict[str, Any]
    examples: list[Example]

    @property
    def judged(self) -> int:
        """Number of prompts that the shares are based on."""
        return int(self.facts["judged"])


def read_judgement(artifact: Artifact, examples: int) -> Judgement:
    """The facts of a judgement, and up to `examples` of its prompts, evenly spread over the kinds of results."""
    facts = artifact.manifest.facts
    shares = {name: Outcome(facts[name], *facts["intervals"][name]) for name in ("win", "tie", "lose", "net")}
    return Judgement(
        artifact=artifact,
        name=artifact.name or facts["model"]["name"],
        against=facts["against"]["name"],
        opponent=facts["against"]["model"],
        judge=facts["judge"]["model"],
        facts=facts,
        examples=_examples(artifact, examples),
        **shares,
    )


def _examples(artifact: Artifact, most: int) -> list[Example]:
    found: dict[str, list[Example]] = {kind: [] for kind in _WANTED}
    for rows in _pairs(artifact) if most else ():
        if not all(row["status"] == "ok" for row in rows):
            continue
        kind = _kind(*(row["verdict"] for row in rows))
        if len(found[kind]) < most:
            answers = (rows[0]["model_answer"], rows[0]["against_answer"])
            found[kind].append(Example(kind, rows[0]["prompt"], answers, (_said(rows[0]), _said(rows[1]))))
    in_turn = [found[kind][place] for place in range(most) for kind in _WANTED if place < len(found[kind])]
    return in_turn[:most]


def _pairs(artifact: Artifact) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The two rows of each prompt, in the order of the judgement."""
    first: dict[str, Any] | None = None
    for batch in artifact.batches(rows=1000):
        for row in batch.to_pylist():
            if first is None:
                first = row
            else:
                yield first, row
                first = None


def _kind(one: str, other: str) -> str:
    if {one, other} == {"model", "against"}:
        return "flip"
    winner = next((verdict for verdict in (one, other) if verdict != "tie"), "tie")
    return {"model": "win", "against": "lose"}.get(winner, "tie")


def _said(row: dict[str, Any]) -> tuple[str, str]:
    scores = "" if row["model_score"] is None else f" ({row['model_score']} to {row['against_score']})"
    return row["verdict"], scores
