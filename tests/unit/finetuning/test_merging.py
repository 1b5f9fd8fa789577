"""Adapters that hold nothing are found out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tamis.core.errors import ModelError
from tamis.finetuning.merging import check_adapter


def write_adapter(folder: Path, a: list[float], b: list[float]) -> Path:
    import torch
    from safetensors.torch import save_file

    tensors = {"q_proj.lora_A.weight": torch.tensor(a), "q_proj.lora_B.weight": torch.tensor(b)}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def test_a_trained_adapter_passes(tmp_path: Path) -> None:
    check_adapter(write_adapter(tmp_path, [0.1, 0.2], [0.0, -1e-6]))


def test_an_adapter_of_embeddings_starts_with_its_first_factor_at_zero(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    for first, learnt in ((0.0, False), (0.1, True)):
        parts = {"embed.lora_embedding_A": torch.tensor([first]), "embed.lora_embedding_B": torch.tensor([0.2])}
        save_file(parts, tmp_path / "adapter_model.safetensors")
        if learnt:
            check_adapter(tmp_path)
        else:
            with pytest.raises(ModelError):
                check_adapter(tmp_path)


@pytest.mark.parametrize(
    ("a", "b", "seen"),
    [
        ([0.1], [0.0, 0.0], "zero"),
        ([0.1], [float("nan")], r"lora_B\.weight"),
        ([float("inf")], [0.1], r"lora_A\.weight"),
        ([0.1], [], "empty"),
    ],
)
def test_an_adapter_that_learnt_nothing_or_broke_is_an_error(
    tmp_path: Path, a: list[float], b: list[float], seen: str
) -> None:
    with pytest.raises(ModelError, match=seen):
        check_adapter(write_adapter(tmp_path, a, b))


def test_an_adapter_without_tensors_is_an_error(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"\b0 tensors"):
        check_adapter(tmp_path)
