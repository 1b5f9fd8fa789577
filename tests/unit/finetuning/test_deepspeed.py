"""DeepSpeed's stages with two real processes on a CPU: the losses of one plain process, also after a kill.

Stage 3 shares all that stage 2 shares, and the weights too. Stage 2 runs in the tests of losses and of a kill only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tamis.finetuning.settings import FinetuningSettings
from tamis.finetuning.stage import run
from tests.artifacts import make_selection
from tests.unit.finetuning.conftest import samples
from tests.unit.finetuning.test_processes import losses, same_adapters
from tests.unit.finetuning.test_stage import ROOT, logits_of
from tests.unit.finetuning.test_training import settings_of

pytestmark = [
    pytest.mark.timeout(1200),  # the first start compiles, and a killed training starts three times
    pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed"),
]
LORA = {"rank": 4, "dropout": 0}


@pytest.fixture(scope="module")
def subset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven samples: the last step of an epoch is short."""
    return make_selection(tmp_path_factory.mktemp("subset") / "selection", samples(11))


@pytest.fixture(scope="module")
def plain(tiny: Path, subset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that one process makes without DeepSpeed."""
    out = tmp_path_factory.mktemp("plain") / "out"
    run(settings_of(tiny, lora=LORA, epochs=2), selection=subset, out=out)
    return out


@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_two_processes_that_share_train_as_one_does(
    tiny: Path, subset: Path, plain: Path, tmp_path: Path, stage: str
) -> None:
    from transformers import AutoModelForCausalLM

    settings = settings_of(tiny, lora=LORA, epochs=2, micro_batch_size=1, processes=2, deepspeed=stage)
    manifest = run(settings, selection=subset, out=tmp_path / "out")
    assert manifest.facts["processes"] == 2
    np.testing.assert_allclose(losses(tmp_path / "out"), losses(plain), rtol=1e-5)
    same_adapters(tmp_path / "out", plain)
    merged, alone, base = (AutoModelForCausalLM.from_pretrained(folder) for folder in (tmp_path / "out", plain, tiny))
    tokens = list(range(100, 120))
    np.testing.assert_allclose(logits_of(merged, tokens), logits_of(alone, tokens), atol=1e-3)
    assert np.abs(logits_of(merged, tokens) - logits_of(base, tokens)).max() > 0.05


def test_in_bfloat16_the_losses_agree_within_its_rounding(
    tiny: Path, subset: Path, plain: Path, tmp_path: Path
) -> None:
    values: dict[str, Any] = {"lora": LORA, "epochs": 2, "precision": "bfloat16", "save_precision": "float32"}
    settings = settings_of(tiny, **values, micro_batch_size=1, processes=2, deepspeed="zero3")
    run(settings, selection=subset, out=tmp_path / "out")
    np.testing.assert_allclose(losses(tmp_path / "out"), losses(plain), rtol=4e-3)  # 2^-8


@pytest.mark.parametrize("stage", [None, "zero3"])
def test_packed_rows_are_shared_too(tiny: Path, subset: Path, tmp_path: Path, stage: str | None) -> None:
    # Three rows of eleven samples: in the second step one process has a row of nothing to learn.
    values: dict[str, Any] = {"lora": LORA, "packing": True, "max_tokens": 256, "batch_size": 2, "micro_batch_size": 1}
    alone = run(settings_of(tiny, **values), selection=subset, out=tmp_path / "alone")
    assert alone.facts["steps"] == 2
    run(settings_of(tiny, **values, processes=2, deepspeed=stage), selection=subset, out=tmp_path / "out")
    np.testing.assert_allclose(losses(tmp_path / "out"), losses(tmp_path / "alone"), rtol=1e-5)
    same_adapters(tmp_path / "out", tmp_path / "alone")


def test_all_weights_are_trained_in_shares(tiny: Path, subset: Path, tmp_path: Path) -> None:
    run(settings_of(tiny, method="full"), selection=subset, out=tmp_path / "plain")
    settings = settings_of(tiny, method="full", micro_batch_size=1, processes=2, deepspeed="zero3")
    run(settings, selection=subset, out=tmp_path / "out")
    np.testing.assert_allclose(losses(tmp_path / "out"), losses(tmp_path / "plain"), rtol=1e-5)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_weights_in_four_bits_are_shared_too(tiny: Path, subset: Path, tmp_path: Path) -> None:
    run(settings_of(tiny, lora=LORA, method="qlora"), selection=subset, out=tmp_path / "alone")
    settings = settings_of(tiny, lora=LORA, method="qlora", micro_batch_size=1, processes=2, deepspeed="zero3")
    run(settings, selection=subset, out=tmp_path / "out")
    np.testing.assert_allclose(losses(tmp_path / "out"), losses(tmp_path / "alone"), rtol=1e-5)
    same_adapters(tmp_path / "out", tmp_path / "alone")


@pytest.mark.parametrize("stage", [None, "zero2", "zero3"])
def test_killed_in_the_middle_two_processes_go_on_to_the_same_model(
    tiny: Path, subset: Path, tmp_path: Path, stage: str | None
) -> None:
    settings = settings_of(tiny, epochs=10, micro_batch_size=1, processes=2, deepspeed=stage, save_every_steps=5)
    run(settings, selection=subset, out=tmp_path / "whole")
    kill_at_first_checkpoint(settings, subset, tmp_path / "resumed")
    manifest = run(settings, selection=subset, out=tmp_path / "resumed")
    assert manifest.facts["steps"] == 30
    np.testing.assert_allclose(losses(tmp_path / "resumed"), losses(tmp_path / "whole"), rtol=1e-5)
    same_adapters(tmp_path / "resumed", tmp_path / "whole")


def kill_at_first_checkpoint(settings: FinetuningSettings, selection: Path, out: Path) -> None:
    """Start the stage in another process, and kill it with all its children when the first checkpoint is whole."""
    code = (
        "import sys\nfrom tamis.finetuning.settings import FinetuningSettings\nfrom tamis.finetuning.stage import run\n"
        "run(FinetuningSettings.model_validate_json(sys.argv[1]), selection=sys.argv[2], out=sys.argv[3])"
    )
    command = [sys.executable, "-c", code, settings.model_dump_json(), selection, out]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "components")}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        while not list(out.parent.glob(".finetuning-*.scratch/checkpoints/*/complete")):
            assert process.poll() is None, "training ended before it could be killed"
            time.sleep(0.02)
        launcher = psutil.Process(process.pid)
        family = [launcher, *launcher.children(recursive=True)]
        for member in family:
            member.kill()
        psutil.wait_procs(family)
    assert not out.exists()
