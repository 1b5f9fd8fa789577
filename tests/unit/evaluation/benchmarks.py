"""The real benchmark files of `TAMIS_TEST_DATA`, laid out as local copies of the hub's data sets.

    python -m tests.unit.evaluation.benchmarks $TAMIS_TEST_DATA/eval FOLDER

A folder `FOLDER/cais/mmlu` with the data set's files and card is what `hf download --repo-type dataset --local-dir`
gives; lm-eval, and Tamis with `data_dir: FOLDER`, reads it in place of the hub's.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

Rows = list[dict[str, Any]]
LANGUAGES = {"en": "english", "sw": "swahili", "bn": "bengali", "ko": "korean"}  # those of which there are files
_HELD_BACK = 5  # questions of a language without training file that serve as examples and are not asked


def lay_out(source: Path, folder: Path) -> Path:
    """Write the five benchmarks of `source` below `folder`; returns `folder`."""
    subjects: dict[str, dict[str, Rows]] = {}
    for split in ("dev", "test"):
        for row in read_lines(source / f"mmlu_{split}.jsonl"):
            splits = subjects.setdefault(row["subject"], {"dev": [], "test": []})
            splits[split].append({**row, "answer": "ABCD".index(row["answer"])})
    _write(folder / "cais/mmlu", subjects)
    truthfulqa = {name: {"validation": rows} for name, rows in _truthfulqa(source).items()}
    _write(folder / "truthfulqa/truthful_qa", truthfulqa)
    questions = read_lines(source / "gsm8k/test.jsonl")
    _write(folder / "openai/gsm8k", {"main": {"train": questions[:8], "test": questions}})  # no training row is used
    tasks = {
        file.stem: json.loads(file.read_text())["examples"] for file in sorted((source / "bbh/bbh").glob("*.json"))
    }
    _write(folder / "SaylorTwift/bbh", {task: {"test": rows} for task, rows in tasks.items()})
    _write(folder / "google-research-datasets/tydiqa", {"secondary_task": _tydiqa(source / "tydiqa_goldp")})
    return folder


def _truthfulqa(source: Path) -> dict[str, Rows]:
    """MC2 as its authors define it, all right and all wrong answers, right ones first; and the same for generation."""

    def answers(text: str) -> list[str]:
        return [answer.strip() for answer in text.split(";") if answer.strip()]

    choices, generation = [], []
    with (source / "truthfulqa/TruthfulQA.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            best, right, wrong = row["Best Answer"], answers(row["Correct Answers"]), answers(row["Incorrect Answers"])
            one = {"choices": [best, *wrong], "labels": [1] + [0] * len(wrong)}
            many = {"choices": [*right, *wrong], "labels": [1] * len(right) + [0] * len(wrong)}
            choices.append({"question": row["Question"], "mc1_targets": one, "mc2_targets": many})
            generation.append(
                {
                    "type": row["Type"],
                    "category": row["Category"],
                    "question": row["Question"],
                    "best_answer": best,
                    "correct_answers": right,
                    "incorrect_answers": wrong,
                    "source": row["Source"],
                }
            )
    return {"multiple_choice": choices, "generation": generation}


def _tydiqa(source: Path) -> dict[str, Rows]:
    splits: dict[str, Rows] = {"train": [], "validation": []}
    for language in LANGUAGES.values():
        asked = _squad(source / f"{language}_tydiqa_dev.json")
        training = source / f"{language}_tydiqa_train.json"
        if training.is_file():
            splits["train"] += _squad(training)
        else:
            splits["train"] += asked[:_HELD_BACK]
            asked = asked[_HELD_BACK:]
        splits["validation"] += asked
    return splits


def _squad(file: Path) -> Rows:
    return [
        {
            "id": question["id"],
            "title": article["title"],
            "context": paragraph["context"],
            "question": question["question"],
            "answers": {
                "text": [answer["text"] for answer in question["answers"]],
                "answer_start": [answer["answer_start"] for answer in question["answers"]],
            },
        }
        for article in json.loads(file.read_text(encoding="utf-8"))["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]


def read_lines(file: Path) -> Rows:
    with file.open(encoding="utf-8") as lines:  # not `splitlines`: a question may hold a separator of Unicode's
        return [json.loads(line) for line in lines]


def _write(folder: Path, configs: Mapping[str, Mapping[str, Iterable[dict[str, Any]]]]) -> None:
    """A data set: a file for each configuration and split, and the card that says which is which."""
    card = []
    for config, splits in configs.items():
        (folder / config).mkdir(parents=True)
        files = []
        for split, rows in splits.items():
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (folder / config / f"{split}.jsonl").write_text(text, encoding="utf-8")
            files.append({"split": split, "path": f"{config}/{split}.jsonl"})
        card.append({"config_name": config, "data_files": files})
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': card})}---\n", encoding="utf-8")


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]), Path(sys.argv[2]))
