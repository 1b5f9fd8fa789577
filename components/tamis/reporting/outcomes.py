"""Read subsets and evaluations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.reporting.samples import Samples

BASE = "base"
_SUITE = "suite.json"


@dataclass(frozen=True)
class Subset:
    """A selection: `positions` (m,) in the pool, in the order of picking."""

    artifact: Artifact
    name: str
    strategy: str
    positions: NDArray[np.int64]


def read_subset(artifact: Artifact, samples: Samples) -> Subset:
    """The ids of one selection as positions in the pool."""
    ids = pq.read_table(artifact.path("selection.parquet"), columns=["id"])["id"].combine_chunks()
    strategy = str(artifact.manifest.config.get("strategy") or "")
    return Subset(artifact, artifact.name or strategy, strategy, samples.positions(ids, artifact))


@dataclass(frozen=True)
class Score:
    """A model's value on one task; `value` is None if the task failed."""

    value: float | None
    stderr: float | None
    n: int


@dataclass(frozen=True)
class Benchmark:
    """How a task was run, according to its suite.

    Attributes:
        suite: name and version of the suite.
        notes: notes of the suite.
        examples: few-shot examples in the prompt.
        differs: how the task differs from the published benchmark.
        in_mean: whether it counts in the mean over tasks.
    """

    suite: str
    notes: str
    examples: int
    differs: str
    in_mean: bool


@dataclass(frozen=True)
class Evaluations:
    """All evaluations: scores by (model, task), one metric per task.

    Attributes:
        models: names, base models first.
        tasks: names in the order of the evaluations.
        metric: the main metric of each task.
        scores: the score of each (model, task); pairs that were not run are missing.
        others: rows of further metrics, as (model, task, metric, score).
        benchmarks: how each task was run, if known.
    """

    artifacts: list[Artifact]
    models: list[str]
    tasks: list[str]
    metric: dict[str, str]
    scores: dict[tuple[str, str], Score]
    others: list[tuple[str, str, str, Score]]
    benchmarks: dict[str, Benchmark]

    @property
    def averaged(self) -> list[str]:
        """The tasks that count in a mean over tasks."""
        return [task for task in self.tasks if task not in self.benchmarks or self.benchmarks[task].in_mean]

    @property
    def untrained(self) -> list[Artifact]:
        """The evaluations of models that Tamis did not train."""
        return [artifact for artifact in self.artifacts if not artifact.manifest.inputs.get("model")]


def read_evaluations(artifacts: list[Artifact]) -> Evaluations:
    """The score tables of all evaluations; if a task has several metrics, the first one is its main metric."""
    rows: list[dict[str, Any]] = []
    for artifact in artifacts:
        for row in pq.read_table(artifact.path("scores.parquet")).to_pylist():
            rows.append(row | {"model": row["model"] or artifact.name})
    models = list(dict.fromkeys([*(artifact.name for artifact in artifacts if artifact.name), *_each(rows, "model")]))
    models.sort(key=lambda name: not is_base(name))
    rows.sort(key=lambda row: models.index(row["model"]))
    metric: dict[str, str] = {}
    for row in rows:
        metric.setdefault(row["task"], row["metric"])
    scores, others = {}, []
    for row in rows:
        value, stderr = (_finite(row[name]) for name in ("value", "stderr"))
        score = Score(value, stderr if value is not None else None, row["n"])
        if row["metric"] == metric[row["task"]]:
            scores[row["model"], row["task"]] = score
        else:
            others.append((row["model"], row["task"], row["metric"], score))
    return Evaluations(artifacts, models, list(metric), metric, scores, others, _benchmarks(artifacts))


def is_base(name: str) -> bool:
    """Whether an evaluation of this name is a base model's: "base", or "base-…" if a run has several."""
    return name == BASE or name.startswith(f"{BASE}-")


def _benchmarks(artifacts: list[Artifact]) -> dict[str, Benchmark]:
    found: dict[str, Benchmark] = {}
    for artifact in artifacts:
        if not any(file.name == _SUITE for file in artifact.manifest.files):
            continue
        suite = json.loads(artifact.path(_SUITE).read_text(encoding="utf-8"))
        name = f"“{suite['name']}”, version {suite['version']}"
        for task in suite["tasks"]:
            asked = Benchmark(name, suite["notes"], task["num_fewshot"], task["differs"], task["in_mean"])
            found.setdefault(task["task"], asked)
    return found


def _each(rows: list[dict[str, Any]], column: str) -> list[str]:
    return list(dict.fromkeys(row[column] for row in rows))


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None
