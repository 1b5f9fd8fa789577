"""Batches of token ids for causal language models: grouping by length, padding, and the loss of each sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tamis.core.conversations import IGNORED, Encoder, Tokens, Unusable
from tamis.core.errors import ModelError
from tamis.core.samples import Message

if TYPE_CHECKING:
    import torch


def encode_all(encoder: Encoder, conversations: Sequence[Sequence[Message]]) -> list[Tokens | str]:
    """The tokens of each conversation, or the reason why it cannot be used."""
    encoded: list[Tokens | str] = []
    for messages in conversations:
        try:
            encoded.append(encoder.encode(messages))
        except Unusable as reason:
            encoded.append(str(reason))
    return encoded


def by_length(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Group indices of `lengths`, longest first, so that each group has at most `tokens` tokens, padding included.

    A sample that is longer than `tokens` forms a group of its own.
    """
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= tokens:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def padded(rows: Sequence[Sequence[int]], fill: int, *, left: bool = False) -> NDArray[np.int64]:
    """Rows of different lengths as one (rows, longest) array, padded with `fill` on the right, or on the `left`."""
    width = max(map(len, rows))
    table = np.full((len(rows), width), fill, np.int64)
    for number, row in enumerate(rows):
        table[number, width - len(row) if left else 0 : None if left else len(row)] = row
    return table


def mean_losses(
    model: Any, rows: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean negative log-likelihood of each row's labelled tokens.

    Args:
        model: a causal language model. Gradients are computed unless the caller disables them.
        rows: token ids of B samples.
        labels: the token ids again, with `IGNORED` for tokens that do not count. The first token never counts.

    Returns:
        (B,) float32 means, and (B,) int64 counts of the tokens in each mean. A mean over no tokens is 0.

    Raises:
        ModelError: when a loss is NaN or infinite, or the GPU does not have enough memory.
    """
    import torch

    ids = torch.from_numpy(padded(rows, 0)).to(model.device)
    mask = torch.from_numpy(padded([[1] * len(row) for row in rows], 0)).to(model.device)
    targets = torch.from_numpy(padded(labels, IGNORED)).to(model.device)[:, 1:]
    counts = (targets != IGNORED).sum(1)
    kept = (targets != IGNORED).any(0).nonzero().flatten()
    if not len(kept):
        return torch.zeros(len(rows), device=model.device), counts
    with explained_memory(f"a batch of {len(rows)} samples of up to {ids.shape[1]} tokens"):
        logits = logits_at(model, ids, mask, kept)
        losses = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), targets[:, kept].flatten(), reduction="none", ignore_index=IGNORED
        )
    means: torch.Tensor = losses.view(len(rows), -1).sum(1) / counts.clamp_min(1)
    if not torch.isfinite(means).all():
        raise ModelError("the model returned NaN or infinity", action="try precision: float32")
    return means, counts


def logits_at(model: Any, ids: torch.Tensor, mask: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(B, L, V) logits that follow the tokens at the L `places` of (B, T) `ids`.

    The logits at other places are not computed where the model allows that. Rows may be padded on the left: positions
    count only the tokens in the `mask`.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "use_cache": False}
    if "logits_to_keep" in signature(type(inner).forward).parameters:
        logits: torch.Tensor = model(**given, logits_to_keep=places).logits
        return logits
    return model(**given).logits[:, places]  # type: ignore[no-any-return]


@contextmanager
def explained_memory(what: str, action: str = "lower batch_tokens or max_tokens") -> Iterator[None]:
    """Turn an out-of-memory error of the GPU into a `ModelError` that says what did not fit and what to do."""
    import torch

    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise ModelError(f"the GPU does not have enough memory for {what}", action=action) from None
