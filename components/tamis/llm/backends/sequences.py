"""Sequences that a model reads together, growing chunk by chunk on top of a beginning that they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tamis.core.errors import ModelError

if TYPE_CHECKING:
    import torch
    from transformers import DynamicCache, PreTrainedModel


def head_cache(model: PreTrainedModel, head: Sequence[int]) -> DynamicCache:
    """The keys and values of the shared beginning, computed once, for one row.

    Raises:
        ModelError: when the model keeps something else than keys and values, which cannot be shared.
    """
    import torch
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    cache = DynamicCache()
    with torch.inference_mode():
        model(torch.tensor([list(head)], device=model.device), past_key_values=cache, use_cache=True, logits_to_keep=1)
    if not all(isinstance(layer, DynamicLayer) for layer in cache.layers):
        raise ModelError(
            f"the model '{model.name_or_path}' has layers without keys and values, so samples cannot share the prompt",
            allowed="models with attention in every layer",
            action="choose another model",
        )
    return cache


class Sequences:
    """`rows` sequences that begin with the tokens of `head`."""

    def __init__(self, model: PreTrainedModel, head: DynamicCache, rows: int) -> None:
        import torch
        from transformers import DynamicCache

        self._model = model
        self._cache = DynamicCache()
        for number, (keys, values, *_) in enumerate(head):
            self._cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), number)
        length = head.get_seq_length()
        self._mask = torch.ones((rows, length), dtype=torch.long, device=model.device)
        self._lengths = torch.full((rows, 1), length, dtype=torch.long, device=model.device)

    def feed(self, chunks: Sequence[Sequence[int]], keep: int) -> torch.Tensor:
        """Append one chunk to each row and read on.

        Args:
            chunks: token ids, one list per row, of any lengths; an empty one leaves its row as it is.
            keep: how many logits are wanted per row.

        Returns:
            (rows, keep, V) logits after the last `keep` tokens of each chunk.

        Raises:
            ModelError: when a logit is NaN or infinite, or the GPU's memory is too small.
        """
        import torch

        width = max(keep, *map(len, chunks))
        # Padding stands between what a row has and its chunk; it is masked and takes no position.
        ids = torch.tensor([[0] * (width - len(chunk)) + list(chunk) for chunk in chunks], device=self._mask.device)
        mask = torch.tensor([[0] * (width - len(chunk)) + [1] * len(chunk) for chunk in chunks], device=ids.device)
        self._mask = torch.cat([self._mask, mask], -1)
        positions = (self._lengths + mask.cumsum(-1) - 1).clamp_min(0)
        self._lengths = self._lengths + mask.sum(-1, keepdim=True)
        try:
            with torch.inference_mode():
                logits: torch.Tensor = self._model(
                    input_ids=ids,
                    attention_mask=self._mask,
                    position_ids=positions,
                    past_key_values=self._cache,
                    use_cache=True,
                    logits_to_keep=keep,
                ).logits
        except torch.cuda.OutOfMemoryError:
            raise ModelError(
                f"the GPU's memory is too small for a batch of {len(chunks)} samples of up to {width} tokens",
                action="lower backend.batch_tokens or backend.max_sample_tokens",
            ) from None
        if not torch.isfinite(logits).all():
            raise ModelError("the model returned NaN or infinity", action="set precision: float32")
        return logits

    def select(self, kept: Sequence[bool]) -> None:
        """Go on with the rows of which `kept` says so."""
        import torch

        places = torch.tensor([place for place, there in enumerate(kept) if there], device=self._mask.device)
        self._cache.batch_select_indices(places)
        self._mask, self._lengths = self._mask[places], self._lengths[places]

    def take_back(self, count: int) -> None:
        """Undo the last `count` tokens of every row; each row's last chunk must have had as many."""
        if count:
            self._cache.crop(-count)
            self._mask = self._mask[:, :-count]
            self._lengths = self._lengths - count
