"""The answer's JSON as token ids with places for the numbers: what is written for the model, and what it chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tamis.core.errors import ModelError
from tamis.llm.forms import Form

if TYPE_CHECKING:
    import torch


_PIECE = 8  # most tokens of the beginning of a token


@dataclass(frozen=True, slots=True)
class Slot:
    """One number's place in the answer.

    Attributes:
        before: tokens between the number before (or the answer's beginning) and this one.
        values: the tokens of each value, from the lowest.
        ahead: the tokens that start a longer number. Most tokenizers write 10 as "1", "0"; whether a 1 goes on is read
            at the "1" that is appended on trial, so `ahead` is then ("1",); it is empty where every value is one token.
    """

    before: tuple[int, ...]
    values: tuple[tuple[int, ...], ...]
    ahead: tuple[int, ...]

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """P(each value), renormalised over these n.

        The probability of a value is that of its tokens, by the chain rule; where a longer one begins with the same
        tokens (10 with those of 1), the longer one's share is taken off.

        Args:
            logits: (B, 1 + len(ahead), V): after `before`, and after each token of `ahead`.

        Returns:
            (B, n) float64.
        """
        import torch

        logs = torch.log_softmax(logits.float(), -1).double()
        spelled = [sum(logs[:, i, token] for i, token in enumerate(value)) for value in self.values]
        shares = torch.stack([torch.as_tensor(one) for one in spelled], -1).exp()
        exact = shares.clone()
        for short, value in enumerate(self.values):
            for longer, other in enumerate(self.values):
                if len(other) > len(value) and other[: len(value)] == value:
                    exact[:, short] -= shares[:, longer]
        exact = exact.clamp_min(0)
        return exact / exact.sum(-1, keepdim=True)


class Skeleton:
    """The answer of one slot a key and its end, in one tokenizer's tokens; if the form has a text, from its end on.

    Args:
        encode: text to token ids, without special tokens.
        form: of the answer.

    Raises:
        ModelError: when the tokenizer joins numbers with the text around them, so that they cannot be chosen alone.
    """

    def __init__(self, encode: Callable[[str], list[int]], form: Form) -> None:
        self.form, keys = form, range(len(form.keys))
        self.opening = tuple(encode(form.opening)) if form.text else ()
        all_values = [numbers.values for numbers in form.numbers]
        middle = [values[(len(values) - 1) // 2] for values in all_values]
        base = encode(form.rest(middle))
        slots, end = [], 0
        for place in keys:
            changed = [[*middle[:place], value, *middle[place + 1 :]] for value in all_values[place]]
            answers = [encode(form.rest(values)) for values in changed]
            first = _shared(answers)
            last = _shared([answer[first:][::-1] for answer in answers])
            spelled = tuple(tuple(answer[first : len(answer) - last]) for answer in answers)
            slots.append(Slot(tuple(base[end:first]), spelled, _ahead(spelled)))
            end = len(base) - last
        self.slots = tuple(slots)
        self.end = tuple(base[end:])
        for start in range(max(map(len, all_values))):
            values = [all_values[place][(start + 3 * place) % len(all_values[place])] for place in keys]
            if self.tokens(values) != encode(form.rest(values)):
                raise ModelError(
                    "the model's tokenizer joins numbers with the text around them, so answers cannot be structured",
                    action="set structured: false",
                )

    def tokens(self, values: Sequence[int]) -> list[int]:
        """The token ids of the answer that says `values`, from the end of its text on."""
        ids: list[int] = []
        for slot, numbers, value in zip(self.slots, self.form.numbers, values, strict=True):
            ids += [*slot.before, *slot.values[numbers.values.index(value)]]
        return ids + list(self.end)

    @property
    def longest(self) -> int:
        """Most tokens of an answer."""
        # A token of the text may end with a piece that is written again with the closing quotation mark.
        text = len(self.opening) + self.form.text_tokens + (_PIECE if self.form.text else 0)
        return text + len(self.end) + sum(len(slot.before) + max(map(len, slot.values)) for slot in self.slots)


def _shared(sequences: Sequence[Sequence[int]]) -> int:
    """Length of the longest common beginning."""
    shortest = min(map(len, sequences))
    return next((i for i in range(shortest) if len({s[i] for s in sequences}) > 1), shortest)


def _ahead(values: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The longest token sequence after which a number may still go on.

    Raises:
        ModelError: when numbers branch at several places, which one look ahead cannot cover.
    """
    starts = {value[:length] for value in values for length in range(1, len(value))}
    longest = max(starts, key=len, default=())
    if not all(longest[: len(start)] == start for start in starts) or not all(values):
        raise ModelError(
            "the model's tokenizer splits several numbers into tokens, so answers cannot be structured",
            action="set structured: false",
        )
    return longest
