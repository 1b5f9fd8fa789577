"""Evaluation by transformers and by vLLM: the same questions, the same weights, both backends.

    python benchmarks/evaluation.py [--suite SUITE] [--data FOLDER] [--samples N] [--model FOLDER]

Compares scores and answers. Default suite and model are the demo's (`make demo` prepares the model). Prints Markdown
and writes benchmarks/results/evaluation.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tamis.evaluation.settings import EvaluationSettings
from tamis.evaluation.stage import run

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results/evaluation.md"
BACKENDS = ("hf", "vllm")


def main() -> None:
    """Evaluate twice, compare, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default=str(ROOT / "examples/demo/suite.yaml"))
    parser.add_argument("--data", help="folder of local copies of data sets: see the README of the room evaluation")
    parser.add_argument("--samples", type=int, help="so many questions of every task; all if left out")
    parser.add_argument("--model", default=str(ROOT / "build/demo/models/smollm2"))
    given = parser.parse_args()
    values: dict[str, Any] = {"model": given.model, "suite": given.suite, "data_dir": given.data}
    with tempfile.TemporaryDirectory() as temporary:
        for backend in BACKENDS:
            settings = EvaluationSettings(
                backend=backend, precision="float32", max_length=1024, samples=given.samples, **values
            )
            run(settings, out=Path(temporary, backend))
        text = compared(Path(temporary), Path(given.model).name)
    print(text)
    RESULTS.write_text(text, encoding="utf-8")


def compared(folder: Path, model: str) -> str:
    """The scores of both backends in `folder`, and how far single answers are apart, as Markdown."""
    scores = [pq.read_table(folder / backend / "scores.parquet").to_pylist() for backend in BACKENDS]
    lines = [
        "# Evaluation: transformers and vLLM",
        "",
        f"{model} in float32 on {platform.machine()}, lm-eval {version('lm-eval')}, torch {version('torch')}, vLLM "
        f"{version('vllm')}; the same questions by both backends. Made by `python benchmarks/evaluation.py`.",
        "",
        "| task | questions | hf | vllm | standard error | other answers | largest difference of log-probabilities |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    for one, other in zip(*scores, strict=True):
        changed, largest = _apart(folder, one["task"])
        values = f"{100 * one['value']:.2f} | {100 * other['value']:.2f} | {100 * one['stderr']:.2f}"
        lines.append(f"| {one['task']} | {one['n']} | {values} | {changed} | {largest} |")
    return "\n".join(lines) + "\n"


def _apart(folder: Path, task: str) -> tuple[int, str]:
    """How many answers differ, and for multiple choice the largest difference between log-probabilities."""
    changed, differences = 0, []
    for file in sorted((folder / "hf").glob(f"samples_{task}*.jsonl")):
        with file.open(encoding="utf-8") as first, (folder / "vllm" / file.name).open(encoding="utf-8") as second:
            for pair in zip(first, second, strict=True):
                one, other = (json.loads(line)["filtered_resps"] for line in pair)
                if isinstance(one[0], str):
                    changed += one != other
                    continue
                left, right = (np.array([float(choice[0]) for choice in answer]) for answer in (one, other))
                changed += int(left.argmax() != right.argmax())
                differences.append(float(np.abs(left - right).max()))
    return changed, f"{max(differences):.1e}" if differences else "generated"


if __name__ == "__main__":
    main()
