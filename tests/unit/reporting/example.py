"""A run of 400 samples with known truth, two raters, three subsets and evaluations: what the report's tests look at.

    python -m tests.unit.reporting.example FOLDER

makes it below FOLDER, with its report, to look at in a browser.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tamis.core.reliability import reliability
from tamis.core.samples import Message, sample_id
from tamis.core.settings import StageSettings
from tamis.core.steps import Step, run_step
from tamis.core.tables import EVALUATION, POOL, RATINGS, SELECTION, PartsWriter
from tamis.curation.honest import honest_error
from tests.artifacts import conversation, make_curation

N = 400
RATERS = ("mistral-7b", "smollm2-135m")
TOPICS = {
    "cooking": ("a stock", "bread dough", "a roast", "rice", "caramel", "lentils", "an omelette"),
    "astronomy": ("Jupiter", "the Moon", "a comet", "Saturn's rings", "a red giant", "Mars"),
    "programming": ("a hash table", "recursion", "a mutex", "binary search", "a queue"),
    "gardening": ("tomatoes", "a hedge", "compost", "roses", "an apple tree"),
    "history": ("the Hanse", "the printing press", "Roman roads", "the Silk Road"),
    "music": ("a fugue", "the cello", "tempo", "a major chord"),
}
_ASKED = (
    "Explain {0} to a beginner.",
    "What goes wrong most often with {0}?",
    "Give me three facts about {0}.",
    "Why does {0} matter?",
    "Compare {0} with something similar.",
    "Write a short note on {0} for a notice board.",
)
_ANSWERED = (
    "The main thing to know about {0} is how its parts work together. ",
    "People often hurry with {0}, and then the result is uneven. ",
    "It helps to look at one good example of {0} first. ",
    "Experts disagree on the finer points of {0}, but the basics are settled. ",
    "In short, {0} rewards patience. ",
)

EMBEDDING = {
    "texts_cut": 11,
    "equal_vectors": 4,
    "beginnings_left_out": [{"characters": 4000, "tokens": 1000, "sha256": "0" * 64, "samples": 120}],
}


@dataclass(frozen=True)
class Run:
    """Where the artifacts of a run lie."""

    pool: Path
    ratings: list[Path]
    curation: Path
    selections: list[Path]
    models: list[Path]
    evaluations: list[Path]

    def inputs(self) -> dict[str, Any]:
        """As arguments of the reporting stage."""
        return dict(vars(self))


class Strategy(StageSettings):
    """What the report reads of a selection's settings."""

    OUTPUT_REVISION: ClassVar[int] = 1

    strategy: str
    size: int
    seed: int = 42


class Trained(StageSettings):
    """Settings of the finetuning and evaluation of the example."""

    OUTPUT_REVISION: ClassVar[int] = 1

    learning_rate: float = 1e-4
    suite: str = "quick"


def make_run(folder: Path, *, hostile: str = "") -> Run:
    """Write all artifacts of the example; `hostile` is put into texts, errors and warnings."""
    random = np.random.default_rng(7)
    grades, samples, metadata = _samples(random, hostile)
    ids = [sample_id(messages) for messages in samples]
    sources = [("handwritten", "assistant-logs", "textbook")[i % 7 // 3] for i in range(N)]
    pool = _pool(folder / "pool", samples, sources, metadata)
    truth = np.clip(grades, 4, 9) - 4
    overall = {
        "mistral-7b": np.clip(np.rint(grades + random.normal(0.4, 1.4, N)), 1, 10).astype(int),
        "smollm2-135m": np.clip(np.rint(random.normal(7, 1, N)), 1, 10).astype(int),
    }
    ratings, rows, diagnosis = [], [], {}
    diversity = random.beta(2, 6, N)
    for rater, values in overall.items():
        missing = np.zeros(N, bool) if rater == "mistral-7b" else random.random(N) < 0.03
        ratings.append(_ratings(folder / f"ratings-{rater}", rater, ids, values, missing, random, hostile))
        raw = np.clip(values, 4, 9) - 4
        corrected, flagged, wrong = _curated(raw, truth, rater, random)
        sure = _sure(corrected, truth, overconfident=rater != "mistral-7b")
        for i in range(N):
            known = not missing[i]
            rows.append(
                {
                    "id": ids[i],
                    "rater": rater,
                    "raw_score": int(raw[i]) if known else None,
                    "score": int(corrected[i]) if known else int(np.median(raw)),
                    "flagged": bool(flagged[i]) and known,
                    "error_probability": float(wrong[i]),
                    "suggested": int(corrected[i]),
                    "confidence": float(sure[i]),
                    "mean": float(np.clip(corrected[i] + (0.5 - sure[i]) * (1 if i % 2 else -1), 0, 5)),
                    "diversity": float(diversity[i]),
                }
            )
        diagnosis[rater] = _diagnosis(raw, truth, rater, hostile) | _joint(raw, corrected, truth, sure, rater, hostile)
    curation = make_curation(folder / "curation", rows, diagnosis, facts={"embedding": EMBEDDING})
    score = np.array([row["score"] for row in rows[:N]])
    picks = {
        "ds2": np.lexsort((-diversity, -score))[:60],
        "random": random.permutation(N)[:60],
        "longest": np.argsort([-sum(len(m["content"]) for m in sample) for sample in samples], kind="stable")[:90],
    }
    selections, models = [], []
    for name, positions in picks.items():
        selections.append(_selection(folder / f"selection-{name}", name, [ids[i] for i in positions]))
        models.append(_model(folder / f"model-{name}", name, len(positions)))
    scores: dict[str, list[tuple[str, str, float | None, float | None, int]]] = {
        "base": [("arc_easy", "acc", 0.612, 0.0100, 2376), ("gsm8k", "exact_match", 0.081, 0.0075, 1319)],
        "ds2": [("arc_easy", "acc", 0.648, 0.0098, 2376), ("gsm8k", "exact_match", 0.112, 0.0087, 1319)],
        "random": [("arc_easy", "acc", 0.621, 0.0099, 2376), ("gsm8k", "exact_match", 0.078, 0.0074, 1319)],
        "longest": [("arc_easy", "acc", 0.590, 0.0101, 2376), ("gsm8k", "exact_match", None, None, 0)],
    }
    more = {"base": (0.334, 0.0165), "ds2": (0.371, 0.0169), "random": (0.341, 0.0166)}
    for name, (value, stderr) in more.items():
        scores[name].append(("truthfulqa_mc2", "acc", value, stderr, 817))
    suite = about(["arc_easy", "gsm8k", "truthfulqa_mc2"], differs=f"up to 256 tokens{hostile}", notes=hostile)
    evaluations = [
        make_evaluation(folder / f"evaluation-{name}", name, rows, suite=suite) for name, rows in scores.items()
    ]
    return Run(pool, ratings, curation, selections, models, evaluations)


def _samples(random: np.random.Generator, hostile: str) -> tuple[np.ndarray, list[list[Message]], list[dict[str, Any]]]:
    topics = list(TOPICS)
    grades, samples, metadata = random.integers(2, 11, N), [], []
    for i in range(N):
        topic = topics[int(random.integers(len(topics)))]
        subject = TOPICS[topic][int(random.integers(len(TOPICS[topic])))]
        asked = _ASKED[int(random.integers(len(_ASKED)))].format(subject)
        length = int(np.clip(random.lognormal(1.0, 0.8), 1, 40))
        answer = "".join(_ANSWERED[int(random.integers(len(_ANSWERED)))].format(subject) for _ in range(length))
        turns = [asked, f"({i + 1}) {answer}{hostile}"]
        if i % 9 == 0:
            turns += ["Can you say that more simply?", f"Yes: {subject} is easier than it looks."]
        samples.append(conversation(*turns))
        metadata.append({"grade": int(grades[i]), "topic": topic} if i % 20 else {"topic": topic})
    return grades, samples, metadata


def _pool(out: Path, samples: list[list[Message]], sources: list[str], metadata: list[dict[str, Any]]) -> Path:
    rows = [
        {"id": sample_id(m), "source": s, "messages": m, "origin": i, "metadata": json.dumps(d)}
        for i, (m, s, d) in enumerate(zip(samples, sources, metadata, strict=True))
    ]
    fates = {
        name: {"read": sources.count(name) + 9, "kept": sources.count(name), "rejected": 2, "duplicates": 7}
        for name in dict.fromkeys(sources)
    }
    fates["handwritten"] |= {
        "fields_not_read": {"id": 172, "messages.weight": 9},
        "fields_lost": {"messages.weight": 3},
    }
    total = {key: sum(fate[key] for fate in fates.values()) for key in ("read", "kept", "rejected", "duplicates")}
    facts = total | {"mean_turns": 2.225, "reject_reasons": {"empty message": 4, "no answer": 2}, "sources": fates}
    return _write(out, "pool", "pool", POOL, rows, facts=facts)


def _ratings(
    out: Path,
    rater: str,
    ids: Sequence[str],
    values: np.ndarray,
    missing: np.ndarray,
    random: np.random.Generator,
    hostile: str,
) -> Path:
    rows = []
    for i, (sample, value) in enumerate(zip(ids, values.tolist(), strict=True)):
        given = None if missing[i] else value
        refused = missing[i] and i % 2
        rows.append(
            {
                "id": sample,
                "rater": rater,
                "overall": given,
                "rarity": given and max(1, given - 2),
                "complexity": given and max(1, given - 1),
                "informativeness": given,
                "expected": None if given is None else given + float(random.normal(0, 0.2)),
                "status": "ok" if given else "refused" if refused else "unparsable",
                "error": None if given else f"no JSON object in the answer{hostile}" if not refused else None,
                "attempts": 1 if given else 3,
                "prompt_tokens": 310,
                "completion_tokens": 28,
            }
        )
    facts = {"cost": 1.25} if rater == "mistral-7b" else {}
    models = {"rater": f"example/{rater}@main"}
    return _write(out, "rating", "ratings", RATINGS, rows, name=rater, models=models, facts=facts)


def _curated(
    raw: np.ndarray, truth: np.ndarray, rater: str, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    wrong = raw != truth
    if rater == "mistral-7b":
        flagged = np.where(wrong, random.random(N) < 0.75, random.random(N) < 0.06)
        target = np.where(random.random(N) < 0.8, truth, np.clip(raw + random.choice([-1, 1], N), 0, 5))
    else:
        flagged = random.random(N) < 0.3
        target = np.full(N, int(np.median(raw)))
    confidence = np.where(flagged, random.uniform(0.3, 0.99, N), random.uniform(0, 0.3, N))
    changed = flagged & (confidence > 0.5)
    return np.where(changed, target, raw), flagged, confidence


def _diagnosis(raw: np.ndarray, truth: np.ndarray, rater: str, hostile: str) -> dict[str, Any]:
    matrix = np.full((6, 6), 0.2)
    np.add.at(matrix, (truth, raw), 1)
    matrix /= matrix.sum(1, keepdims=True)
    good = rater == "mistral-7b"
    chance = float((np.bincount(raw, minlength=6) / N) @ (np.bincount(raw, minlength=6) / N))
    warning = "Class 5 has 9 samples only; its row of the matrix is a guess."
    weak = "Neighbours agree no more than chance would let them: the ratings do not follow the content." + hostile
    return {
        "mode": "exact",
        "k": 20 if good else 12,
        "confidence": 0.5,
        "T": matrix.tolist(),
        "p": (np.bincount(truth, minlength=6) / N).tolist(),
        "observed_prior": (np.bincount(raw, minlength=6) / N).tolist(),
        "log_likelihood": -3.214 if good else -2.807,
        "clusterability": [chance + (0.3 if good else 0.012) * 0.95**rank for rank in range(20)],
        "identifiability": {"diagonal_dominant": good, "relabelled": False, "smallest_class": 9},
        "warnings": [warning] if good else [weak],
    }


def _sure(score: np.ndarray, truth: np.ndarray, *, overconfident: bool) -> np.ndarray:
    """Probabilities that scores are right: about true, or too high."""
    random = np.random.default_rng(11)
    told = np.where(score == truth, random.beta(5, 2, N), random.beta(2, 3, N))
    return 1 - (1 - told) / 3 if overconfident else told


def _joint(
    raw: np.ndarray, curated: np.ndarray, truth: np.ndarray, sure: np.ndarray, rater: str, hostile: str
) -> dict[str, Any]:
    """What the joint model says besides; of the second rater, which has no grades, less."""
    good = rater == "mistral-7b"
    shares = (0.05, 0.15, 0.3, 0.5, 0.7, 0.9)
    plausibility = (0.02, 0.28, 0.46, 0.2, 0.035, 0.005) if good else (0.1, 0.15, 0.2, 0.2, 0.2, 0.15)
    found: dict[str, Any] = {
        "explained": True,
        "assume": "cautious",
        "own_share": sum(s * w for s, w in zip(shares, plausibility, strict=True)),
        "own_share_interval": [0.12, 0.55] if good else [0.03, 0.94],
        "shared_errors": 0.08 if good else None,
        "weights": {"neighbors": 0.7, "regression": 0.4},
        "regression": {"explained_variance": 0.31 if good else 0.02},
        "predictive_log_likelihood": -1.52 if good else -1.401,
        "margin_log_likelihood": -1.71 if good else -1.403,
        "gain_standard_error": 0.012,
        "sensitivity": [
            {
                "own_share": share,
                "plausibility": weight,
                "corrected": round(180 * (1 - share)),
                "expected_right_raw": 0.42 + 0.1 * share,
                "expected_right": 0.75 - 0.4 * share,
                "expected_error_raw": 0.9 - 0.1 * share,
                "expected_error": 0.5 + 0.5 * share,
            }
            for share, weight in zip(shares, plausibility, strict=True)
        ],
        "reasons": [] if good else [f"one rater's ratings cannot tell own classes from errors{hostile}"],
        "advice": [] if good else ["grade 100 samples (tamis grade next RUN)", f"add a second rater{hostile}"],
    }
    if good:
        known = np.random.default_rng(5).permutation(N)[:120]
        held_out = np.full(N, -1, np.int8)
        held_out[known] = truth[known]
        calibrated = reliability(sure[known], (curated == truth)[known])
        assert calibrated is not None
        found["held_out"] = honest_error(held_out, raw.astype(np.int8), curated.astype(np.int8)) | {
            "n": len(known),
            "reliability": calibrated.as_json(),
        }
        agreement = {"graders": 2, "samples_with_several": 40, "equal_class": 0.6, "krippendorff_alpha": 0.71}
        found["grades"] = {"graded": len(known), "weighted": False, "agreement": agreement}
        found["predicted"] = {"rated": N, "unrated": 0, "held_out_correlation": 0.6, "held_out_error": 0.9}
    else:
        found["predicted"] = {"rated": 392, "unrated": 8, "held_out_correlation": 0.05, "held_out_error": 1.1}
    return found


def _selection(out: Path, name: str, ids: list[str]) -> Path:
    def write(step: Step[Strategy]) -> None:
        rows = [{"id": i, "rank": rank, "score": None, "diversity": None} for rank, i in enumerate(ids)]
        pq.write_table(pa.Table.from_pylist(rows, schema=SELECTION), step.out / "selection.parquet")
        step.rows = len(ids)

    strategy = {"longest": "length"}.get(name, name)
    run_step("selection", "selection", Strategy(strategy=strategy, size=len(ids)), write, out=out, name=name)
    return out


def _model(out: Path, name: str, samples: int) -> Path:
    def write(step: Step[Trained]) -> None:
        (step.out / "training.json").write_text(json.dumps({"samples": samples}))
        dropped = {"a turn is longer than max_tokens": 2} if name == "longest" else {}
        step.facts.update(
            samples=samples - sum(dropped.values()),
            dropped=dropped,
            steps=3 * samples // 8,
            final_loss=1.0 + 20 / samples,
        )
        step.models["base"] = "example/base-1b@main"

    run_step("finetuning", "model", Trained(), write, out=out, name=name)
    return out


def about(tasks: Sequence[str], *, beside: Sequence[str] = (), differs: str = "", notes: str = "") -> dict[str, Any]:
    """What an evaluation says of its suite; the tasks `beside` enter no mean."""
    asked = [{"task": t, "num_fewshot": 3, "differs": differs, "in_mean": t not in beside} for t in tasks]
    return {"name": "mine", "version": "7", "notes": notes, "tasks": asked}


def make_evaluation(
    out: Path,
    name: str,
    rows: Sequence[tuple[str, str, float | None, float | None, int]],
    *,
    column: str | None = None,
    suite: dict[str, Any] | None = None,
) -> Path:
    """A finished evaluation of (task, metric, value, stderr, n) rows; returns `out`."""

    def write(step: Step[Trained]) -> None:
        columns = ("task", "metric", "value", "stderr", "n")
        table = [{"model": column or name, **dict(zip(columns, row, strict=True))} for row in rows]
        pq.write_table(pa.Table.from_pylist(table, schema=EVALUATION), step.out / "scores.parquet")
        if suite is not None:
            (step.out / "suite.json").write_text(json.dumps(suite))
        step.rows = len(rows)

    run_step("evaluation", "evaluation", Trained(), write, out=out, name=name)
    return out


def _write(
    out: Path,
    stage: str,
    kind: Any,
    schema: pa.Schema,
    rows: list[dict[str, Any]],
    *,
    name: str = "",
    models: dict[str, str] | None = None,
    facts: dict[str, Any] | None = None,
) -> Path:
    def write(step: Step[Trained]) -> None:
        with PartsWriter(step.out, schema) as parts:
            parts.write_rows(rows)
        step.rows = parts.rows
        step.models.update(models or {})
        step.facts.update(facts or {})

    run_step(stage, kind, Trained(), write, out=out, name=name)
    return out


if __name__ == "__main__":
    from tamis.reporting.settings import ReportingSettings
    from tamis.reporting.stage import run

    here = Path(sys.argv[1])
    shown = ReportingSettings(
        title="Which samples to train on",
        truth="grade",
        group="topic",
        notes=("All texts and numbers of this page are made up to show the report; nothing was measured.",),
    )
    print(run(shown, **make_run(here).inputs(), out=here / "report").facts["headline"])
