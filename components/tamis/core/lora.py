"""LoRA: which modules of a model can have an adapter, found without loading weights, and PEFT's configuration."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from tamis.core.errors import MissingExtraError, SettingsError
from tamis.core.models import load_skeleton
from tamis.core.progress import load_packages

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import nn


class Lora(Protocol):
    """Settings of LoRA, in whichever section they are."""

    @property
    def rank(self) -> int:
        """Inner dimension of the matrices."""

    @property
    def alpha(self) -> int:
        """The adapter's output is scaled by alpha / rank."""

    @property
    def dropout(self) -> float:
        """Share of a module's inputs that training sets to zero."""

    @property
    def targets(self) -> Sequence[str] | Literal["all-linear"]:
        """Names of the adapted modules."""

    @property
    def layers(self) -> int | None:
        """Number of last layers with adapters; None for all layers."""


def lora_config(lora: Lora, layers: int) -> LoraConfig:
    """PEFT's configuration for a causal language model with `layers` layers.

    Raises:
        MissingExtraError: when peft is not installed.
    """
    try:
        load_packages("peft")
        from peft import LoraConfig
    except ImportError:
        raise MissingExtraError.of("peft", "training") from None
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        layers_to_transform=list(range(layers - lora.layers, layers)) if lora.layers else None,
        task_type="CAUSAL_LM",
    )


def check_lora(
    lora: Lora, model: str, revision: str | None, *, where: str, embeddings: bool = False, head: bool = False
) -> None:
    """Make sure, without loading weights, that every target of `lora` exists and can be trained.

    Args:
        lora: the settings.
        model: hub name or folder.
        revision: commit or tag.
        where: dotted name of the settings.
        embeddings: whether the caller can train adapters of embeddings.
        head: whether the caller can train an adapter of the output head.

    Raises:
        SettingsError: when a target does not exist, cannot be adapted, or is outside the adapted layers.
        ModelError: when the model's configuration cannot be loaded.
        MissingExtraError: when a package is not installed.
    """
    skeleton = load_skeleton(model, revision)
    layers = skeleton.config.get_text_config().num_hidden_layers
    if lora.layers is not None and lora.layers > layers:
        raise SettingsError(f"{where}.layers: seen {lora.layers}", allowed=f"1 to {layers}, or null for all layers")
    config = lora_config(lora, layers)
    if lora.targets != "all-linear":
        modules = {name: module for name, module in skeleton.named_modules() if name}
        output = None if head else skeleton.get_output_embeddings()  # type: ignore[no-untyped-call]
        fit = {name for name, module in modules.items() if _can_adapt(module, embeddings) and module is not output}
        allowed = ", ".join(sorted({_last(name) for name in fit})) or "none: LoRA cannot adapt any module of this model"
        action = "name allowed modules, or set targets: all-linear" if embeddings else "name allowed modules"
        for problem in _problems(lora.targets, modules, fit, config):
            raise SettingsError(f"{where}.targets: '{model}' {problem}", allowed=allowed, action=action)
    _inject(config, skeleton, f"{where}.targets: '{model}'")


def _problems(targets: Sequence[str], modules: dict[str, nn.Module], fit: set[str], config: LoraConfig) -> list[str]:
    """Problems with targets: those that do not exist; if all exist, those that cannot be adapted."""
    from peft.tuners.tuners_utils import check_target_module_exists

    named = {target: [name for name in modules if f".{name}".endswith(f".{target}")] for target in targets}
    missing = [target for target, names in named.items() if not names]
    if missing:
        return [f"has no module named {', '.join(missing)}"]
    problems = []
    for target, names in named.items():
        unfit = [name for name in names if name not in fit]
        if unfit:
            kind = type(modules[unfit[0]]).__name__
            problems.append(f"has a {kind} called {target}, which LoRA cannot train here")
        elif not any(check_target_module_exists(config, name) for name in names):
            problems.append(
                f"has {target} only outside the layers that lora.layers allows ({config.layers_to_transform})"
            )
    return problems


def _can_adapt(module: nn.Module, embeddings: bool) -> bool:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, (nn.Linear, Conv1D, nn.Embedding) if embeddings else (nn.Linear, Conv1D))


def _inject(config: LoraConfig, skeleton: nn.Module, what: str) -> None:
    """Let PEFT insert its matrices, without values. PEFT raises an error for models that it cannot adapt."""
    from peft import inject_adapter_in_model

    try:
        with warnings.catch_warnings(action="ignore"):  # about tied embeddings; merging unties them
            inject_adapter_in_model(config, skeleton, low_cpu_mem_usage=True)
    except (ValueError, NotImplementedError) as error:
        raise SettingsError(
            f"{what} cannot be adapted: {str(error).strip().splitlines()[0]}", action="choose other targets"
        ) from None


def _last(name: str) -> str:
    return name.rpartition(".")[2]
