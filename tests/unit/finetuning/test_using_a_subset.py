"""The code of docs/using-a-subset.md, with real libraries and a tiny model."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from tamis.selection.settings import SelectionSettings
from tamis.selection.stage import run
from tests.artifacts import conversation, make_pool
from tests.conftest import ROOT

_MODEL = "meta-llama/Llama-3.1-8B-Instruct"


def test_trl_trains_on_a_subset_by_the_code_of_the_docs(tiny: Path, tmp_path: Path) -> None:
    samples = [conversation(f"Tell me of {i}.", f"It is {i}.\u2028Yes.", "And more?", f"No {i}.") for i in range(8)]
    samples.append(conversation("Do you hear me?", "Yes.", "Good."))  # ends with a question
    kept = [{"note": i if i % 2 else f"text {i}"} for i in range(9)]  # numbers and text, on which `datasets` stops
    make_pool(tmp_path / "pool", samples, metadata=kept)
    place = tmp_path / "runs/first/selections/best"
    settings = SelectionSettings(name="best", strategy="random", size=9)
    run(settings, pool=tmp_path / "pool", out=place)
    text = (ROOT / "docs/using-a-subset.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    assert code.count(f'"{_MODEL}"') == 1
    on_cpu = code.replace(_MODEL, str(tiny)).replace("SFTConfig(", "SFTConfig(use_cpu=True, bf16=False, ")
    (tmp_path / "train.py").write_text(on_cpu)
    subprocess.run([sys.executable, "train.py"], cwd=tmp_path, check=True, timeout=280)
    assert len((tmp_path / "best-500.jsonl").read_text().split("\n")) == 10
    weights = load_file(tmp_path / "trained/adapter_model.safetensors")
    assert any(np.abs(values).max() > 0 for name, values in weights.items() if "lora_B" in name)  # they start from 0
