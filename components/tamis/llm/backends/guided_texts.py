"""Writes the text in a structured answer: a local model writes the content of one JSON string, and when it ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tamis.llm.backend import Request
from tamis.llm.numbers import FreeText

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from tamis.llm.backends.sampling import Sampling
    from tamis.llm.backends.sequences import Sequences

_FIRST_DRAW = 1000  # numbers of an answer have the draws from 0
_HALF = "\N{REPLACEMENT CHARACTER}"  # a character whose last bytes are missing


class GuidedTexts:
    """Texts by a local model that fit into a JSON string without escapes.

    Tokens with a backslash cannot be chosen. The first token with a quotation mark or a control character, such as a
    line break, ends the text, as does the end of the answer; it is not given to the model.

    Args:
        tokenizer: the model's.
        sampling: how tokens are chosen.
        ends: the tokens that end an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, sampling: Sampling, ends: Iterable[int]) -> None:
        self._tokenizer, self._sampling = tokenizer, sampling
        self._mask: Tensor | None = None
        self._special = {*ends, *(number for number in tokenizer.all_special_ids if number is not None)}

    def write(
        self, rows: Sequences, chunks: list[list[int]], requests: Sequence[Request], form: FreeText
    ) -> tuple[list[str], list[int], list[list[int]]]:
        """Let the model write one text per row.

        Args:
            rows: the sequences; they are read on until each text ends.
            chunks: the tokens of each row that it has not read yet.
            requests: one per row, for the draws.
            form: the limits of the texts.

        Returns:
            The texts, their numbers of tokens, and the tokens of each row that it has not read yet.
        """
        written: list[list[int]] = [[] for _ in requests]
        texts: list[str | None] = [None] * len(requests)
        left: list[list[int]] = [[] for _ in requests]
        for position in range(form.tokens):
            going = [place for place, text in enumerate(texts) if text is None]
            if not going:
                break
            logits = rows.feed(chunks, keep=1)[:, 0].float()
            logits = logits.masked_fill(self._never(logits), -float("inf"))
            draws = [self._sampling.draw(one.id, one.attempt, _FIRST_DRAW + position) for one in requests]
            chosen = self._sampling.choose(logits.log_softmax(-1), draws).tolist()
            chunks = [[] for _ in requests]
            for place in going:
                token = chosen[place]
                before = self._text_of(written[place])
                added = "\n" if token in self._special else self._text_of([*written[place], token])[len(before) :]
                end = next((at for at, one in enumerate(added) if one == '"' or ord(one) < ord(" ")), None)
                if end is None:
                    written[place].append(token)
                    chunks[place] = [token]
                    if len(before) + len(added) >= form.characters:
                        texts[place], left[place], chunks[place] = before + added, [token], []
                else:
                    piece = added[:end].rstrip()
                    texts[place] = before + piece
                    left[place] = self._ids_of(piece)
                    written[place] += left[place]
        for place, text in enumerate(texts):
            if text is None:  # the last token of a text that the limit ends is not read yet
                texts[place], left[place] = self._text_of(written[place]), chunks[place]
        shown = [(text or "").rstrip(_HALF)[: form.characters].strip() for text in texts]
        return shown, [len(ids) for ids in written], left

    def _never(self, logits: Tensor) -> Tensor:
        """The tokens that cannot be chosen, as a mask (V,)."""
        import torch

        if self._mask is not None:
            return self._mask
        # In every kind of vocabulary a backslash is written as itself, or as its byte.
        vocabulary = self._tokenizer.get_vocab()
        never = [number for token, number in vocabulary.items() if "\\" in token or token == "<0x5C>"]
        mask = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
        mask[[number for number in never if number < len(mask)]] = True
        mask[max(vocabulary.values()) + 1 :] = True  # rows of the matrix without a token
        self._mask = mask
        return mask

    def _text_of(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def _ids_of(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids
