"""Choosing among tokens or scores, so that a choice depends on the sample and the seed but not on its batch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose; the fields are those of `RatingSettings`."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0

    @property
    def greedy(self) -> bool:
        """Whether the most probable is always taken."""
        return self.temperature == 0

    def draw(self, sample: str, attempt: int, position: int) -> float:
        """A number in [0, 1) that is the same on every machine and in every batch."""
        text = f"{self.seed}:{sample}:{attempt}:{position}"
        # 53 bits are what a float holds; more could round up to 1.
        return (int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 11) / 2**53

    def choose(self, logits: torch.Tensor, draws: list[float]) -> torch.Tensor:
        """One choice per row.

        Args:
            logits: (B, V) log-probabilities, possibly not normalised.
            draws: B numbers of `draw`; each picks its row's choice by the inverse of the cumulative distribution.

        Returns:
            (B,) int64, the chosen columns.
        """
        import torch

        if self.greedy:
            return logits.argmax(-1)
        count = min(self.top_k or logits.shape[-1], logits.shape[-1])
        best, columns = logits.topk(count)
        shares = torch.softmax(best.double() / self.temperature, -1)
        # A choice stays while those before it hold less than top_p, so the first one always does.
        shares = torch.where(shares.cumsum(-1) - shares < self.top_p, shares, 0.0)
        levels = shares.cumsum(-1)
        wanted = torch.tensor(draws, dtype=levels.dtype, device=levels.device)[:, None] * levels[:, -1:]
        places = (levels <= wanted).sum(-1, keepdim=True)
        last = (shares > 0).sum(-1, keepdim=True) - 1
        return columns.gather(-1, torch.minimum(places, last)).squeeze(-1)
