"""Evaluation by transformers and by vLLM: the same questions, the same weights, both backends.

    python benchmarks/evaluation.py DATA [--model FOLDER] [--questions N]

DATA has local copies of the hub's data sets under their names (the room's README says how to make them).
Asks N questions of every task of MMLU and ten times as many of TruthfulQA (MC2), and compares scores and answers. The
default model is the demo's (`make demo` prepares it). Prints Markdown and writes benchmarks/results/evaluation.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

from tamis.evaluation.settings import EvaluationSettings
from tamis.evaluation.stage import run

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results/evaluation.md"
BACKENDS = ("hf", "vllm")


def main() -> None:
    """Evaluate twice, compare, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default=str(ROOT / "build/demo/models/smollm2"))
    parser.add_argument("--questions", type=int, default=2)
    given = parser.parse_args()
    tasks = [
        {"task": "mmlu", "num_fewshot": 0, "samples": given.questions, "metric": "acc"},
        {"task": "truthfulqa_mc2", "num_fewshot": 0, "samples": 10 * given.questions, "metric": "acc"},
    ]
    with tempfile.TemporaryDirectory() as temporary:
        suite = Path(temporary, "suite.yaml")
        suite.write_text(yaml.safe_dump({"version": "1", "tasks": tasks}))
        seconds = {}
        for backend in BACKENDS:
            began = time.monotonic()
            values: dict[str, Any] = {"model": given.model, "suite": str(suite), "data_dir": str(given.data)}
            settings = EvaluationSettings(backend=backend, precision="float32", max_length=2048, **values)
            run(settings, out=Path(temporary, backend))
            seconds[backend] = time.monotonic() - began
        text = compared(Path(temporary), Path(given.model).name, seconds)
    print(text)
    RESULTS.write_text(text, encoding="utf-8")


def compared(folder: Path, model: str, seconds: dict[str, float]) -> str:
    """The scores of both backends in `folder`, and how far single answers are apart, as Markdown."""
    scores = [pq.read_table(folder / backend / "scores.parquet").to_pylist() for backend in BACKENDS]
    lines = [
        "# Evaluation: transformers and vLLM",
        "",
        f"{model} in float32 on {platform.machine()}, lm-eval {version('lm-eval')}, torch {version('torch')}, vLLM "
        f"{version('vllm')}. The same questions in both; made by `benchmarks/evaluation.py`. With loading, "
        + ", ".join(f"{backend} took {seconds[backend]:.0f} s" for backend in BACKENDS)
        + " (one run each on a busy machine, so not a measure of speed).",
        "",
        "| task | questions | hf | vllm | standard error | other answers | largest difference of log-probabilities |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    for one, other in zip(*scores, strict=True):
        changed, largest = _apart(folder, one["task"])
        values = f"{100 * one['value']:.2f} | {100 * other['value']:.2f} | {100 * one['stderr']:.2f}"
        lines.append(f"| {one['task']} | {one['n']} | {values} | {changed} | {largest:.1e} |")
    return "\n".join(lines) + "\n"


def _apart(folder: Path, task: str) -> tuple[int, float]:
    """How many most probable choices differ, and the largest difference between log-probabilities."""
    changed, largest = 0, 0.0
    for file in sorted((folder / "hf").glob(f"samples_{task}*.jsonl")):
        with file.open(encoding="utf-8") as first, (folder / "vllm" / file.name).open(encoding="utf-8") as second:
            for pair in zip(first, second, strict=True):
                one, other = (
                    np.array([float(choice[0]) for choice in json.loads(line)["filtered_resps"]]) for line in pair
                )
                changed += int(one.argmax() != other.argmax())
                largest = max(largest, float(np.abs(one - other).max()))
    return changed, largest


if __name__ == "__main__":
    main()
