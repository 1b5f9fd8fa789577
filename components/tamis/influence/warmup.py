"""The warm-up: a short LoRA training that saves the adapter and Adam's state after each epoch (LESS, section 4.1)."""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tamis.core.causal import by_length, mean_losses
from tamis.core.conversations import IGNORED, Tokens
from tamis.core.errors import MissingExtraError
from tamis.core.lora import lora_config
from tamis.core.models import load_causal_lm
from tamis.core.progress import Progress, load_packages
from tamis.influence.gradients import BETA_1, BETA_2, EPSILON, Moments
from tamis.influence.settings import InfluenceSettings

if TYPE_CHECKING:
    import torch
    from peft import PeftModel


def lora_model(settings: InfluenceSettings) -> PeftModel:
    """Return the base model with new LoRA matrices, which depend only on the seed.

    Raises:
        ModelError: when the model cannot be loaded.
        MissingExtraError: when peft is not installed.
    """
    try:
        load_packages("peft")
        from peft import get_peft_model
    except ImportError:
        raise MissingExtraError.of("peft", "training") from None
    load_packages("torch")
    import torch

    base = load_causal_lm(settings.model, settings.revision, settings.precision)
    torch.manual_seed(settings.seed)
    config = lora_config(settings.warmup, base.config.get_text_config().num_hidden_layers)
    return get_peft_model(base, config).eval()


@dataclass(frozen=True)
class Checkpoint:
    """The end of one epoch of the warm-up, on disk."""

    path: Path

    def load(self, model: PeftModel) -> tuple[Moments, float]:
        """Load its LoRA matrices into `model`; return Adam's state and the epoch's mean learning rate."""
        import torch

        saved = torch.load(self.path, map_location="cpu", weights_only=True)
        with torch.no_grad():
            for name, weight in _trained(model).items():
                weight.copy_(saved["weights"][name])
        return Moments(saved["first"], saved["second"]), float(saved["rate"])


def warm_up(settings: InfluenceSettings, model: PeftModel, samples: Sequence[Tokens], folder: Path) -> list[Checkpoint]:
    """Train `model`'s LoRA matrices on `samples`; return one checkpoint per epoch, in order.

    Checkpoints of an earlier run in `folder` are reused. The randomness of an epoch depends only on the seed and its
    number, so a resumed run gives the same numbers as an uninterrupted one.

    Raises:
        ModelError: when a loss is not finite, or the GPU's memory is too small.
    """
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    warmup = settings.warmup
    checkpoints = [Checkpoint(folder / f"epoch-{epoch:03d}.pt") for epoch in range(warmup.epochs)]
    finished = sum(checkpoint.path.exists() for checkpoint in checkpoints)
    if finished == len(checkpoints):
        return checkpoints
    weights = _trained(model)
    optimizer = torch.optim.AdamW(
        weights.values(), betas=(BETA_1, BETA_2), eps=EPSILON, weight_decay=0.0, lr=warmup.learning_rate
    )
    if finished:
        _restore(optimizer, weights, checkpoints[finished - 1], model)
    per_epoch = math.ceil(len(samples) / warmup.batch_size)
    total = per_epoch * warmup.epochs
    with Progress("warm-up", total, unit="steps", done=finished * per_epoch) as progress:
        for epoch in range(finished, warmup.epochs):
            torch.manual_seed(settings.seed + 1 + epoch)  # dropout
            order = np.random.default_rng([settings.seed, epoch]).permutation(len(samples))
            rates = []
            model.train()
            for number, start in enumerate(range(0, len(order), warmup.batch_size)):
                rate = warmup.learning_rate * _schedule(epoch * per_epoch + number, total, warmup.warmup_ratio)
                rates.append(rate)
                optimizer.param_groups[0]["lr"] = rate
                loss = _step(model, [samples[row] for row in order[start : start + warmup.batch_size]], settings)
                torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                progress.advance(note=f"loss {loss:.3f}")
            model.eval()
            _save(checkpoints[epoch].path, optimizer, weights, float(np.mean(rates)))
    del optimizer
    gc.collect()
    return checkpoints


def _step(model: PeftModel, batch: Sequence[Tokens], settings: InfluenceSettings) -> float:
    """Add the gradients of the batch's mean loss over all its learnt tokens, group by group; return that loss."""
    groups = by_length([len(tokens.input_ids) for tokens in batch], settings.batch_tokens)
    learnt = sum(label != IGNORED for tokens in batch for label in tokens.labels[1:])
    total = 0.0
    for group in groups:
        rows = [batch[place] for place in group]
        means, counts = mean_losses(model, [t.input_ids for t in rows], [t.labels for t in rows])
        loss = (means * counts).sum() / learnt
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total


def _schedule(step: int, total: int, warmup_ratio: float) -> float:
    """Return a step's share of the peak learning rate: a linear rise from 0, then a linear decay to 0."""
    rise = int(total * warmup_ratio)
    return (step + 1) / (rise + 1) if step < rise else (total - step) / max(1, total - rise)


def _trained(model: PeftModel) -> dict[str, torch.nn.Parameter]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def _save(path: Path, optimizer: Any, weights: dict[str, Any], rate: float) -> None:
    import torch

    state = {name: optimizer.state[weight] for name, weight in weights.items()}
    temporary = path.with_suffix(".tmp")
    torch.save(
        {
            "weights": {name: weight.detach().cpu() for name, weight in weights.items()},
            "first": {name: values["exp_avg"].cpu() for name, values in state.items()},
            "second": {name: values["exp_avg_sq"].cpu() for name, values in state.items()},
            "step": float(next(iter(state.values()))["step"]),
            "rate": rate,
        },
        temporary,
    )
    temporary.replace(path)


def _restore(optimizer: Any, weights: dict[str, Any], checkpoint: Checkpoint, model: PeftModel) -> None:
    import torch

    moments, _ = checkpoint.load(model)
    step = torch.load(checkpoint.path, map_location="cpu", weights_only=True)["step"]
    for name, weight in weights.items():
        optimizer.state[weight] = {
            "step": torch.tensor(step),
            "exp_avg": moments.first[name].to(weight.device),
            "exp_avg_sq": moments.second[name].to(weight.device),
        }
