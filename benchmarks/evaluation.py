"""Evaluation of a base and a finetuned model on the paper's five benchmarks, by three programs.

    tamis demo build/demo --prepare models
    python benchmarks/evaluation.py --finetuned FOLDER [--data FOLDER] [PART ...]

`commands`: Tamis and lm-eval's own command line on the same questions, of which metrics, prompts and answers must be
equal. `backends`: vLLM beside transformers on the multiple-choice tasks, where vLLM is installed. The finetuned model
is one that `tamis finetune` made of the demo's, by default that of `make demo`. `--data` holds the benchmarks as local
copies of the hub's data sets (README of the room evaluation), without it they are those of `TAMIS_TEST_DATA`. Tables go
to benchmarks/results/evaluation.md, where those of the other part stay.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]
RESULTS = ROOT / "benchmarks/results/evaluation.md"
BASE = ROOT / "build/demo/models/smollm2"
SUBJECTS = ("anatomy", "astronomy", "global_facts", "marketing")


def choice(per_subject: int, truthfulqa: int) -> list[dict[str, Any]]:
    """The multiple-choice tasks, with so many questions."""
    return [
        *(
            {"task": f"mmlu_{subject}", "num_fewshot": 0, "samples": per_subject, "metric": "acc"}
            for subject in SUBJECTS
        ),
        {"task": "truthfulqa_mc2", "num_fewshot": 0, "samples": truthfulqa, "metric": "acc"},
    ]


GENERATED = [
    {"task": "truthfulqa_gen", "num_fewshot": 0, "samples": 1, "metric": "bleu_acc"},
    {"task": "gsm8k_cot", "num_fewshot": 8, "samples": 1, "metric": "exact_match,flexible-extract"},
    {"task": "bbh_cot_fewshot_navigate", "num_fewshot": 3, "samples": 1, "metric": "exact_match,get-answer"},
    {"task": "tydiqa_goldp_en", "num_fewshot": 1, "samples": 1, "metric": "f1"},
]
Models = dict[str, Path]


def suite(folder: Path, lines: list[dict[str, Any]]) -> Path:
    """A suite of these lines."""
    file = folder / f"suite-{len(lines)}.yaml"
    file.write_text(yaml.safe_dump({"version": "1", "tasks": lines}), encoding="utf-8")
    return file


def commands(models: Models, data: Path, work: Path) -> list[str]:
    """The scores of all models on all five benchmarks; ends where lm-eval's command line gives anything else."""
    from tests.unit.evaluation.test_benchmarks import check

    file = suite(work, choice(2, 2) + GENERATED)
    scores = []
    for name, model in models.items():
        (work / name).mkdir()
        scores.append({row["task"]: row for row in check(model, file, data, work / name)})
    lines = [
        "Metrics to the last digit, prompts and answers are those of `lm-eval run` on the same questions. The",
        "questions are real ones, drawn by seed, and far too few to compare models by.",
        "",
        f"| task | metric | questions | {' | '.join(models)} |",
        f"| --- | --- | --: |{' --: |' * len(models)}",
    ]
    for task, row in scores[0].items():
        values = " | ".join(f"{100 * of[task]['value']:.1f}" for of in scores)
        lines.append(f"| {task} | {row['metric']} | {row['n']} | {values} |")
    return lines


def backends(models: Models, data: Path, work: Path) -> list[str]:
    """Both backends on the multiple-choice tasks with the base model: scores, answers, log-probabilities."""
    import vllm

    from tamis.evaluation.settings import EvaluationSettings
    from tamis.evaluation.stage import run

    file = suite(work, choice(4, 4))
    lines = [
        f"vLLM {vllm.__version__} beside transformers {version('transformers')}, both in float32, on the same",
        "questions, in percent. The difference is that of the mean scores, ± its standard error (paired). An",
        "answer is the choice of the highest log-probability.",
        "",
        "| benchmark | questions | transformers | vLLM | difference | other answers | largest difference of "
        "log-probabilities |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    folders = [work / backend for backend in ("hf", "vllm")]
    for folder in folders:
        values: dict[str, Any] = {"model": str(BASE), "suite": str(file), "data_dir": str(data)}
        settings = EvaluationSettings(backend=folder.name, precision="float32", max_length=2048, **values)
        run(settings, out=folder)
    for benchmark in ("mmlu", "truthfulqa_mc2"):
        lines.append(f"| {benchmark} | {compared(*folders, benchmark)} |")
    return lines


def compared(one: Path, other: Path, benchmark: str) -> str:
    """How far two evaluations of a benchmark are apart, as the rest of a table's row."""
    from tests.unit.evaluation.benchmarks import read_lines

    scores, changed, largest = [], 0, 0.0
    for file in sorted(one.glob(f"samples_{benchmark}*.jsonl")):
        for pair in zip(read_lines(file), read_lines(other / file.name), strict=True):
            if pair[0]["prompt_hash"] != pair[1]["prompt_hash"]:
                sys.exit(f"{file.name}: the backends were asked differently")
            scores.append([sample["acc"] for sample in pair])
            left, right = ([float(choice[0]) for choice in sample["filtered_resps"]] for sample in pair)
            changed += int(np.argmax(left) != np.argmax(right))
            largest = max(largest, float(np.abs(np.subtract(left, right)).max()))
    found = 100 * np.array(scores)
    means, apart = found.mean(0), found[:, 1] - found[:, 0]
    error = apart.std(ddof=1) / len(found) ** 0.5
    difference = f"{apart.mean():+.3f} ± {error:.3f}"
    return f"{len(found)} | {means[0]:.2f} | {means[1]:.2f} | {difference} | {changed} | {largest:.1e}"


PARTS = {
    "commands": ("Against lm-eval's command line", commands),
    "backends": ("vLLM and transformers", backends),
}


def main() -> None:
    """Do the parts that are asked for, and write their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if none is given")
    parser.add_argument("--finetuned", type=Path, default=ROOT / "build/demo/run/models/ds2")
    parser.add_argument("--data", type=Path, help="folder of local copies of the data sets")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no part is called '{unknown.pop()}'; allowed: {', '.join(PARTS)}")
    models = {"SmolLM2-135M": BASE, "finetuned": given.finetuned.resolve()}
    for folder in models.values():
        if not folder.is_dir():
            sys.exit(f"left out: {folder} is missing; `make demo` makes both models")
    if given.data is None and "TAMIS_TEST_DATA" not in os.environ:
        sys.exit("left out: give the benchmarks by --data")
    head = "# Evaluation\n\nSmolLM2-135M, as it is and finetuned on 40 samples of the demo's pool, on "
    head += f"{platform.machine()}; lm-eval {version('lm-eval')}, torch {version('torch')}."
    for part in given.parts or PARTS:
        title, measure = PARTS[part]
        if part == "backends" and find_spec("vllm") is None:
            print("left out: backends needs vLLM", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as temporary:
            work = Path(temporary)
            section = "\n".join([title, "", *measure(models, given.data or laid_out(work), work)])
        print(section)
        old = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else head
        kept = {text.splitlines()[0]: text.strip() for text in old.split("\n## ")[1:]} | {title: section}
        RESULTS.write_text("\n\n## ".join([head, *kept.values()]) + "\n", encoding="utf-8")


def laid_out(work: Path) -> Path:
    """The real benchmarks of the project's authors as local copies of the hub's data sets."""
    from tests.unit.evaluation.benchmarks import lay_out

    return lay_out(Path(os.environ["TAMIS_TEST_DATA"]) / "eval", work / "data")


if __name__ == "__main__":
    main()
