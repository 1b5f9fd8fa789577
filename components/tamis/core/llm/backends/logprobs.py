"""P(each value) of an answer's last number, from the token probabilities that a service gives with it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tamis.core.llm.forms import Form

_NUMBER = re.compile(r"\s*(\d+)")
_LEAST = 0.5  # of the probability must be on whole numbers, or the token is not what it seems to be
_UNSURE = 0.02  # most probability that may be on "1" where it cannot be known whether a "0" would have followed


def last_probabilities(form: Form, text: str, tokens: Sequence[Mapping[str, Any]]) -> tuple[float, ...] | None:
    """P(low), …, P(high) of the last key, summing to 1; None where the tokens do not tell.

    A service names the most probable tokens at each place. At the place of the last number they are read as the
    numbers that they begin; other tokens are left out, and the rest is made to sum to 1. Where a tokenizer writes 10 as
    "1" and "0", the share of "1" is split by the probability of the "0" if the answer went there, and given up as not
    known if it did not and the share is above 2 %.

    Args:
        form: of the answer.
        text: the answer.
        tokens: its tokens, each with `token`, `logprob` and `top_logprobs`, which is a list of the same.
    """
    found = re.search(rf'"{re.escape(form.keys[-1])}"\s*:\s*(\d)', text)
    if found is None:
        return None
    try:
        start = 0
        for place, entry in enumerate(tokens):
            end = start + len(entry["token"])
            if start <= found.start(1) < end:
                lead = entry["token"][: found.start(1) - start]
                following = tokens[place + 1] if place + 1 < len(tokens) else None
                return _read(form, lead, entry, following)
            start = end
    except (KeyError, TypeError, ValueError, OverflowError):
        return None  # a compatible server's own idea of the field
    return None


def _read(
    form: Form, lead: str, entry: Mapping[str, Any], following: Mapping[str, Any] | None
) -> tuple[float, ...] | None:
    low, high = form.low, form.high
    shares = [0.0] * (high + 1)
    ten_is_one_token = False
    for token, share in _alternatives(entry).items():
        # " 7", "7" and "7}" say the same; `lead` is what the token holds before the number, as in ':7'.
        rest = token[len(lead) :] if token.startswith(lead) else token if not lead.strip() else ""
        number = _NUMBER.match(rest)
        if number is None or not low <= int(number[1]) <= high:
            continue
        ten_is_one_token |= int(number[1]) == 10
        shares[int(number[1])] += share
    went_to_one = _NUMBER.fullmatch(entry["token"][len(lead) :])
    if high >= 10 and went_to_one and went_to_one[1] == "1" and following is not None:
        nought = sum(share for token, share in _alternatives(following).items() if token.startswith("0"))
        shares[10] += shares[1] * min(nought, 1.0)
        shares[1] *= 1 - min(nought, 1.0)
    elif high >= 10 and not ten_is_one_token and shares[1] > _UNSURE:
        return None
    total = math.fsum(shares)
    return tuple(share / total for share in shares[low:]) if total >= _LEAST else None


def _alternatives(entry: Mapping[str, Any]) -> dict[str, float]:
    """Probabilities by token, the one that was taken among them."""
    entries = [entry, *(entry.get("top_logprobs") or [])]
    return {str(one["token"]): math.exp(one["logprob"]) for one in entries}
