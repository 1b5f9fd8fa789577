"""Projected gradients of many samples at once, by the chain rule inside each LoRA matrix.

A LoRA matrix W maps x to W x. The gradient of one sample's loss is the sum over its tokens of (gradient of the output)
times (input). One backward pass over a batch therefore gives each sample its own gradient. The gradients of a matrix
are projected and freed as soon as they are computed, so a batch needs memory for the gradients of one matrix only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tamis.core.causal import explained_memory, mean_losses
from tamis.core.conversations import Tokens
from tamis.core.errors import ModelError

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from tamis.influence.projection import Projection

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # of AdamW


@dataclass(frozen=True)
class Moments:
    """Adam's state at a checkpoint: running means of gradients and of their squares, in each parameter's shape."""

    first: Mapping[str, torch.Tensor]
    second: Mapping[str, torch.Tensor]

    def direction(self, name: str, gradients: torch.Tensor) -> torch.Tensor:
        """Return Adam's update without the learning rate for (B, ...) `gradients` of parameter `name` (section 3.1)."""
        first, second = self.first[name].to(gradients.device), self.second[name].to(gradients.device)
        means = gradients.mul(1 - BETA_1).add_(first, alpha=BETA_1)
        squares = gradients.square().mul_(1 - BETA_2).add_(second, alpha=BETA_2)
        return means.div_(squares.add_(EPSILON).sqrt_())


class Gradients:
    """Projected and normalised gradients of samples with respect to a model's LoRA matrices.

    Args:
        model: a model with LoRA, in evaluation mode.
        projection: projects the gradients to `dimensions` numbers.
        dimensions: length of a projected gradient.
    """

    def __init__(self, model: PeftModel, projection: Projection, dimensions: int) -> None:
        self._model, self._projection, self._dimensions = model, projection, dimensions
        self._target: torch.Tensor | None = None
        self._moments: Moments | None = None
        modules = dict(model.named_modules())
        self._parts = [name for name, weight in model.named_parameters() if weight.requires_grad]
        for number, name in enumerate(self._parts):
            modules[name.removesuffix(".weight")].register_forward_hook(self._hook(number, name))

    def of(self, batch: Sequence[Tokens], moments: Moments | None) -> torch.Tensor:
        """Return (B, dimensions) float32 vectors of length 1: gradients, or Adam's updates if `moments` are given.

        Each belongs to the sample's mean loss over its learnt tokens. A sample without a gradient gets zeros.

        Raises:
            ModelError: when a loss or gradient is not finite, or the GPU's memory is too small.
        """
        import torch

        target = torch.zeros((len(batch), self._dimensions), device=self._model.device)
        self._target, self._moments = target, moments
        with torch.enable_grad(), explained_memory(f"the gradients of {len(batch)} samples"):
            means, _ = mean_losses(self._model, [t.input_ids for t in batch], [t.labels for t in batch])
            means.sum().backward()  # type: ignore[no-untyped-call]
        self._target = None
        self._model.zero_grad(set_to_none=True)
        if not torch.isfinite(target).all():
            raise ModelError(
                "a gradient is not finite", allowed="finite gradients", action="set influence.precision: float32"
            )
        return torch.nn.functional.normalize(target)

    def _hook(self, number: int, name: str) -> Callable[..., None]:
        def forward(_: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if self._target is None or not output.requires_grad:
                return
            x = inputs[0].detach()

            def backward(gradient: torch.Tensor) -> None:
                assert self._target is not None
                own = gradient.float().transpose(1, 2) @ x.float()  # (B, out, in): one matrix per sample
                if self._moments is not None:
                    own = self._moments.direction(name, own)
                self._projection.add(self._target, number, own.flatten(1))

            output.register_hook(backward)  # type: ignore[no-untyped-call]

        return forward
