"""Samples that a stage cannot use: counted with reasons, said aloud, and an error where there are too many."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from pydantic import Field

from tamis.core.errors import InputError

log = logging.getLogger(__name__)

TOO_LONG = "no token of an answer within max_tokens"
TURN_TOO_LONG = "a turn is longer than max_tokens"
REFUSED = "the chat template refuses the roles or their order"
REWRITTEN = "the chat template rewrites an answer or what is before it"
BEYOND = "a token that is beyond the model's vocabulary"
NOT_PLAIN = "words of control tokens that the tokenizer cannot read as plain text"
_CURES = {
    TOO_LONG: "raise {stage}.max_tokens",
    TURN_TOO_LONG: "raise {stage}.max_tokens",
    REFUSED: "take a format that knows these roles (format: tulu), or a model whose template does",
    REWRITTEN: "take a format that keeps earlier turns as they are (format: tulu), or leave thoughts out of the pool",
    BEYOND: "take the tokenizer that belongs to the model, or make the model's embeddings as large as the tokenizer",
    NOT_PLAIN: "leave such samples out of the pool",
}
MOST_LEFT_OUT = Field(0.05, ge=0, le=1, description="share of samples that may be left out; more of them are an error")


def told(reasons: Mapping[str, int]) -> str:
    """The reasons with their counts, the most frequent first."""
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(f"{reason}: {count:,}" for reason, count in ordered)


def cure_of(reason: str, stage: str) -> str:
    """What helps against a reason, where something does."""
    return _CURES.get(reason, "").format(stage=stage)


def check_left_out(reasons: Mapping[str, int], samples: int, most: float, *, stage: str) -> None:
    """Say how many of `samples` are left out, and why.

    Args:
        reasons: samples that cannot be used, by reason.
        samples: all, these included.
        most: share that may be left out.
        stage: the section of a run's settings.

    Raises:
        InputError: when there are more than that, with what helps against each reason.
    """
    left_out = sum(reasons.values())
    if not left_out:
        return
    problem = f"{left_out:,} of {samples:,} samples are left out ({told(reasons)})"
    if left_out > most * samples or left_out == samples:
        cures = [cure_of(reason, stage) for reason in _CURES if reason in reasons]
        raise InputError(
            f"{stage}: {problem}",
            allowed=f"{most:.1%} of them at most ({stage}.max_left_out_share)",
            action="; or ".join([*cures, "raise the limit, if the others are enough"]),
        )
    log.warning("%s: %s", stage, problem)
