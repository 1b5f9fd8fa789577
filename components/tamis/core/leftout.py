"""Samples that a stage cannot use. They are counted by reason and reported; too many of them are an error."""

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
# What the user can do about each reason. Manifests hold the reasons, so their texts must not change.
_ACTIONS = {
    TOO_LONG: "raise {stage}.max_tokens",
    TURN_TOO_LONG: "raise {stage}.max_tokens",
    REFUSED: "use a format that allows these roles (format: tulu), or a model whose chat template allows them",
    REWRITTEN: "use a format that does not change earlier turns (format: tulu), or remove thoughts from the pool",
    BEYOND: "use the tokenizer that belongs to the model, or enlarge the model's embeddings to the tokenizer's size",
    NOT_PLAIN: "remove such samples from the pool",
}
MOST_LEFT_OUT = Field(0.05, ge=0, le=1, description="fail when a larger share of the samples cannot be used")


def reasons_in_words(reasons: Mapping[str, int]) -> str:
    """The reasons with their counts, the most frequent first."""
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(f"{reason}: {count:,}" for reason, count in ordered)


def action_for(reason: str, stage: str) -> str:
    """What to do about a reason; empty for an unknown one."""
    return _ACTIONS.get(reason, "").format(stage=stage)


def check_left_out(reasons: Mapping[str, int], samples: int, most: float, *, stage: str) -> None:
    """Warn of the samples that are left out, with reasons.

    Args:
        reasons: counts of samples that cannot be used, by reason.
        samples: number of all samples.
        most: largest share that may be left out.
        stage: the stage's section in the settings file.

    Raises:
        InputError: when a larger share is left out, with what to do about each reason.
    """
    left_out = sum(reasons.values())
    if not left_out:
        return
    problem = f"{left_out:,} of {samples:,} samples are left out ({reasons_in_words(reasons)})"
    if left_out > most * samples or left_out == samples:
        actions = [action_for(reason, stage) for reason in _ACTIONS if reason in reasons]
        raise InputError(
            f"{stage}: {problem}",
            allowed=f"at most {most:.1%} of the samples ({stage}.max_left_out_share)",
            action="; or ".join([*actions, "raise the limit if the remaining samples are enough"]),
        )
    log.warning("%s: %s", stage, problem)
