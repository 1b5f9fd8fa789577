"""P(each value) of an answer's numbers, from the token probabilities that a service gives with it."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tamis.llm.forms import Form
from tamis.llm.numbers import Numbers
from tamis.llm.thoughts import split

ALTERNATIVES = 10  # tokens named at each place: as many as a number has values
_NUMBER = re.compile(r"\s*(\d+)")
_LEAST = 0.5  # of the probability must be on whole numbers, or the token is not what it seems to be
_UNSURE = 0.02  # most probability that may be on "1" where it cannot be known whether a "0" would have followed


Shares = tuple[float, ...]


def told_probabilities(form: Form, text: str, tokens: Sequence[Mapping[str, Any]]) -> tuple[Shares, ...] | None:
    """P(low), …, P(high) of each key in `form.told`, summing to 1; None if the tokens do not tell those of every key.

    See `key_probabilities`.
    """
    found = [key_probabilities(form, text, tokens, key) for key in form.told]
    told = tuple(one for one in found if one is not None)
    return told if len(told) == len(found) else None


def key_probabilities(form: Form, text: str, tokens: Sequence[Mapping[str, Any]], key: int = -1) -> Shares | None:
    """P(low), …, P(high) of the key with the index `key`, summing to 1; None if the tokens do not tell.

    A service names the most probable tokens at each place. At the place of the key's number they are read as the
    numbers that they begin; other tokens are left out, and the rest is made to sum to 1. Where a tokenizer writes 10 as
    "1" and "0", the share of "1" is split by the probability of the "0" if the answer went there, and given up as not
    known if it did not and the share is above 2 %.

    Args:
        form: of the answer.
        text: the answer.
        tokens: its tokens, and others that may stand around, each with `token`, `logprob` and `top_logprobs`, a list
            of the same; `bytes` where a token is a part of a letter.
    """
    numbers = form.numbers[key]
    if numbers.decimals or numbers.step > 1:  # its numbers are several tokens, whose alternatives only the engine knows
        return None
    number = _start_of(form, text, key)
    if number is None:
        return None
    try:
        pieces = [_bytes_of(entry) for entry in tokens]
        # Tokens may hold more than the answer: thoughts before it, an end of turn behind it.
        answer = text.strip()
        begins = b"".join(pieces).rfind(answer.encode())
        if begins < 0:
            return None
        number = begins + len(text[:number].lstrip().encode())
        start = 0
        for place, (entry, piece) in enumerate(zip(tokens, pieces, strict=True)):
            if start <= number < start + len(piece):
                lead = piece[: number - start].decode(errors="replace")
                following = tokens[place + 1] if place + 1 < len(tokens) else None
                return _read(numbers, lead, entry, following)
            start += len(piece)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None  # a compatible server's own idea of the field
    return None


def _bytes_of(entry: Mapping[str, Any]) -> bytes:
    """A token's bytes: a letter of several may be in two tokens, whose texts do not show it."""
    given = entry.get("bytes")
    return bytes(given) if isinstance(given, list) and given else str(entry["token"]).encode()


def probabilities_of_ids(
    form: Form, ids: Sequence[int], named: Sequence[Mapping[int, float]], decode: Callable[[Sequence[int]], str]
) -> tuple[Shares, ...] | None:
    """As `told_probabilities`, of token ids; `named` has the most probable ids of each place, with logs."""
    found = [_of_ids(form, ids, named, decode, key) for key in form.told]
    told = tuple(one for one in found if one is not None)
    return told if len(told) == len(found) else None


def _of_ids(
    form: Form,
    ids: Sequence[int],
    named: Sequence[Mapping[int, float]],
    decode: Callable[[Sequence[int]], str],
    key: int,
) -> Shares | None:
    text = decode(ids)
    start = _start_of(form, text, key)
    if start is None:
        return None
    ends = [len(decode(ids[:count])) for count in range(len(ids) + 1)]
    first = bisect_right(ends, start) - 1  # the place of the number's first token

    def entry(place: int) -> dict[str, Any]:
        # A token's text may depend on what stands before it.
        texts = {one: decode([*ids[:place], one])[ends[place] :] for one in named[place]}
        top = [{"token": texts[one], "logprob": share} for one, share in named[place].items()]
        return {"token": texts[ids[place]], "logprob": named[place][ids[place]], "top_logprobs": top}

    before = {"token": text[: ends[first]], "logprob": 0.0}
    after = {"token": text[ends[min(first + 2, len(ids))] :], "logprob": 0.0}
    return key_probabilities(form, text, [before, *map(entry, range(first, min(first + 2, len(ids)))), after], key)


def _start_of(form: Form, text: str, place: int) -> int | None:
    """Where the number of a key begins in an answer; None where that can be several places."""
    begins = text.rfind(split(text)[1])
    if len(form.keys) == 1 and (bare := re.fullmatch(r"\s*(\d+)\D*", text[begins:])):
        return begins + bare.start(1)
    key = r"[\s_-]*".join(map(re.escape, re.split(r"[\s_-]+", form.keys[place])))
    found = list(re.finditer(rf'"{key}"\s*:\s*"?(\d)', text[begins:], re.IGNORECASE))
    return begins + found[0].start(1) if len(found) == 1 else None


def _read(
    numbers: Numbers, lead: str, entry: Mapping[str, Any], following: Mapping[str, Any] | None
) -> tuple[float, ...] | None:
    low, high = numbers.low, numbers.high
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
